package server

import (
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/http1"
)

// fieldCheck looks at the fields of HTTP/2 requests for what makes them
// malformed (RFC 9113 sections 8.1.1, 8.2.2, 8.3.1) and net/http lets pass, or
// does not answer as the RFC has it. What passes can be written as HTTP/1.1
// and is read there as the same request.
type fieldCheck struct {
	decoder *hpack.Decoder

	size      uint32 // of the block's fields so far, as the protocol counts it
	bad       bool
	authority string
	host      string
	length    bool
	te        bool
}

// maxBlock is the size of fields up to which a block is looked at. net/http
// refuses smaller ones; in a few bytes that refer to a large field of the table
// there may be thousands of times as much to look at.
const maxBlock = 2 * http1.MaxHead

// headerTable is the size of HPACK's table for what the client sends: the one
// that holds when nothing else was said, as net/http says nothing.
const headerTable = 4 << 10

func (f *fieldCheck) init() {
	f.decoder = hpack.NewDecoder(headerTable, f.note)
	f.decoder.SetMaxStringLength(http1.MaxHead)
}

// add takes the next part of a block of fields. It tells, with the last one,
// whether the block is malformed. After an error the blocks that follow mean
// nothing.
func (f *fieldCheck) add(part []byte, last bool) (malformed bool, err error) {
	if _, err := f.decoder.Write(part); err != nil {
		return false, err
	}
	if !last {
		return false, nil
	}
	if err := f.decoder.Close(); err != nil {
		return false, err
	}
	malformed = f.bad || f.host != "" && f.authority != "" && !strings.EqualFold(f.host, f.authority)
	*f = fieldCheck{decoder: f.decoder}
	f.decoder.SetEmitEnabled(true)
	return malformed, nil
}

// note looks at a field.
func (f *fieldCheck) note(field hpack.HeaderField) {
	if f.size += field.Size(); f.size > maxBlock {
		f.decoder.SetEmitEnabled(false) // for the rest of the block
		return
	}
	switch name, value := field.Name, field.Value; name {
	case ":method":
		f.require(http1.IsToken(value))
	case ":path":
		f.require(http1.IsTarget(value))
	case ":authority":
		f.require(http1.IsHost(value))
		f.authority = value
	case "host":
		f.require(http1.IsHost(value) && f.host == "")
		f.host = value
	case "content-length":
		f.require(!f.length && isNumber(value))
		f.length = true
	case "te":
		f.require(!f.te && value == "trailers")
		f.te = true
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		f.bad = true
	}
}

func (f *fieldCheck) require(ok bool) { f.bad = f.bad || !ok }

// isNumber reports whether s is made of digits alone.
func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
