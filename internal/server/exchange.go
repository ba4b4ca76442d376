package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/tunnel"
)

// exchange is an httpmsg.ResponseWriter over net/http's.
type exchange struct {
	w       http.ResponseWriter // rec, or middleware's wrapper of it
	rec     *recorder
	control *http.ResponseController
	hints   bool // the client understands 1xx
	http2   bool

	// mu orders the heads: a 1xx comes from the goroutine that reads from the
	// node, "100 Continue" from the one that writes to it. net/http's own
	// writer of 1xx takes no lock.
	mu   sync.Mutex
	done bool // the answer's head was written, or never will be
}

func newExchange(rec *recorder, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{w: w, rec: rec, control: http.NewResponseController(w), hints: r.ProtoAtLeast(1, 1), http2: r.ProtoMajor == 2}
	if rec.body != nil && rec.body.awaited {
		rec.body.proceed = func() { _ = x.Informational(http.StatusContinue, nil) } // a client that is gone sends no body
	}
	return x
}

// errAnswered is what a 1xx gets that comes behind the answer's head.
var errAnswered = errors.New("the answer has begun")

// Informational sends a 1xx answer; HTTP/1.0 knows none (RFC 9110 section 15.2).
func (x *exchange) Informational(status int, h httpmsg.Header) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.done {
		return errAnswered
	}
	if !x.hints {
		return nil
	}
	header := x.w.Header()
	for _, f := range h {
		header.Add(f.Name, f.Value)
	}
	x.w.WriteHeader(status)
	clear(header)
	return nil
}

// Reason does nothing: net/http writes the usual phrases.
func (x *exchange) Reason(string) {}

// Head writes the answer's head.
func (x *exchange) Head(status int, h httpmsg.Header, length int64) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done = true
	header := x.w.Header()
	// What a node did not say is not invented: net/http leaves out what is set to nil.
	header["Date"] = nil
	header["Content-Type"] = nil
	told := false
	for _, f := range h {
		name := f.Name
		if strings.EqualFold(name, "Content-Length") {
			told = true
			continue // it follows from length
		}
		if status == http.StatusNotModified && name == "Content-Type" {
			name = "content-type" // net/http takes the other spelling out of a 304
		}
		header[name] = append(header[name], f.Value)
	}
	x.frame(header, status, length, told)
	x.w.WriteHeader(status)
	clear(header) // what is in there from now on is trailers
	return nil
}

// frame says how long the body is, or that it is chunked; told says that the
// header had a length.
func (x *exchange) frame(header http.Header, status int, length int64, told bool) {
	switch {
	case x.http2: // has its own way to end a body; the length is for information
		header["Content-Length"] = nil
		if status == http.StatusNotModified {
			return // Go's clients would wait for a body of that length
		}
		if length > 0 || length == 0 && told {
			header["Content-Length"] = []string{strconv.FormatInt(length, 10)}
		}
	case status == http.StatusNoContent:
	case length < 0:
		// Else net/http would count a short body and name its length. It
		// leaves this out where it has no place.
		header["Transfer-Encoding"] = []string{"chunked"}
	default:
		name := "Content-Length"
		if status == http.StatusNotModified {
			name = "content-length"
		}
		header[name] = []string{strconv.FormatInt(length, 10)}
	}
}

// end takes no more heads: the handler has returned.
func (x *exchange) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.done = true
}

func (x *exchange) Write(b []byte) (int, error) { return x.w.Write(b) }

func (x *exchange) Flush() error { return x.control.Flush() }

// Trailer sends the trailer fields, announced or not.
func (x *exchange) Trailer(h httpmsg.Header) error {
	for _, f := range h {
		x.w.Header().Add(http.TrailerPrefix+f.Name, f.Value)
	}
	return nil
}

// Upgrade hijacks the connection and writes the 101 itself.
func (x *exchange) Upgrade(h httpmsg.Header) (io.ReadWriteCloser, error) {
	x.end()
	conn, buffered, err := x.control.Hijack()
	if err != nil {
		return nil, err
	}
	x.rec.switched()
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	for _, f := range h {
		fmt.Fprintf(&head, "%s: %s\r\n", f.Name, f.Value)
	}
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	read, err := buffered.Peek(buffered.Reader.Buffered())
	if err != nil { // it is there
		return nil, errors.Join(err, conn.Close())
	}
	return &tunnel.Conn{Conn: conn, Early: bytes.Clone(read)}, nil
}
