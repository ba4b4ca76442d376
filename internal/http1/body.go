package http1

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Body reads one message's body from a [Reader] and stops at its end. A
// connection that ends before is io.ErrUnexpectedEOF, nonsense an *[Error]. The
// zero value is an empty body.
type Body struct {
	src     *Reader
	left    int64 // of the body, or of the chunk
	length  int64
	between bool // a chunk's data has ended, its CR LF not yet
	bulk    bool // the last piece was a large one: more is on its way
	trailer httpmsg.Header
	err     error // sticky, io.EOF at the end
}

// Reset makes b the body of that length, which src comes to next.
func (b *Body) Reset(src *Reader, length int64) {
	*b = Body{src: src, length: length, left: max(length, 0)}
	if length == 0 {
		b.err = io.EOF
	}
}

// Ended reports whether the body was read to its end.
func (b *Body) Ended() bool { return b.src == nil || b.err == io.EOF } //nolint:errorlint // set by ourselves, never wrapped

// Here is how much of a body whose length is known can be read without
// waiting.
func (b *Body) Here() int {
	if b.src == nil || b.length < 0 {
		return 0
	}
	return int(min(int64(len(b.src.Buffered())), b.left))
}

// Ready reports whether the next read returns without waiting, as far as can
// be told from what is here.
func (b *Body) Ready() bool {
	if b.src == nil || b.err != nil {
		return true
	}
	here := b.src.Buffered()
	if b.length != Chunked || b.left > 0 {
		return len(here) > 0
	}
	if b.between {
		return false // what follows a chunk is not looked into
	}
	line := bytes.IndexByte(here, '\n')
	return line >= 0 && line+1 < len(here)
}

// Wait waits for the next piece where nothing says that it is on its way,
// between chunks for one. It holds no buffer but the reader's, so that a
// stream of events that is idle needs no other. Errors come with Read.
func (b *Body) Wait() {
	switch {
	case b.src == nil || b.err != nil:
	case b.length == Chunked && b.left == 0:
		b.err = b.nextChunk()
	case b.length == UntilClose && !b.bulk:
		b.err = b.src.Wait() // a socket tells of it once
	}
}

// Trailer returns the trailer fields of a chunked body that has ended.
func (b *Body) Trailer() httpmsg.Header { return b.trailer }

// Read reads a piece of the body. The last piece of a body whose length is
// known comes together with io.EOF.
func (b *Body) Read(p []byte) (int, error) {
	if b.src == nil {
		return 0, io.EOF
	}
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	switch b.length {
	case UntilClose:
		n, b.err = b.src.Read(p)
		b.bulk = n >= bufferSize
	case Chunked:
		n, b.err = b.chunk(p)
	default:
		n, b.err = b.piece(p)
		if b.err == nil && b.left == 0 {
			b.err = io.EOF
		}
	}
	return n, b.err
}

// piece reads from what is left of the body or chunk.
func (b *Body) piece(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.src.Read(p)
	b.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// chunk reads from the present chunk, and the line in front of it.
func (b *Body) chunk(p []byte) (int, error) {
	if b.left == 0 {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := b.piece(p)
	if err != nil || b.left > 0 {
		return n, err
	}
	b.between = true
	// The end is told with the last data when it is here already, so that the
	// two can leave together.
	if string(b.src.Buffered()) == "\r\n0\r\n\r\n" {
		return n, b.nextChunk()
	}
	return n, nil
}

// nextChunk reads up to the data of the next chunk; io.EOF behind the last.
func (b *Body) nextChunk() error {
	if b.between {
		end, err := b.src.line(0 + 1)
		if err != nil {
			return err
		}
		if end != "" {
			return malformed("a chunk is longer than it said")
		}
		b.between = false
	}
	line, err := b.src.line(maxChunkLine)
	if err != nil {
		return err
	}
	if b.left, err = chunkSize(line); err != nil {
		return err
	}
	if b.left > 0 {
		return nil
	}
	return b.end()
}

// chunkSize reads hexadecimal digits, and passes over extensions (RFC 9112
// section 7.1.1).
func chunkSize(line string) (int64, error) {
	var n int64
	i := 0
	for ; i < len(line); i++ {
		var digit byte
		switch c := line[i]; {
		case '0' <= c && c <= '9':
			digit = c - '0'
		case 'a' <= c && c <= 'f':
			digit = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			digit = c - 'A' + 10
		default:
			digit = 0xff
		}
		if digit == 0xff {
			break
		}
		if i == 15 {
			return 0, malformed("a chunk is too large")
		}
		n = n<<4 | int64(digit)
	}
	if i == 0 || !IsValue(line[i:]) || i < len(line) && !strings.HasPrefix(trim(line[i:]), ";") {
		return 0, malformed("malformed chunk size")
	}
	return n, nil
}

// end reads the trailer section.
func (b *Body) end() error {
	for size := 0; ; {
		line, err := b.src.line(maxTrailer - size)
		if err != nil {
			return err
		}
		if line == "" {
			return io.EOF
		}
		if size += len(line); len(b.trailer) == MaxFields {
			return malformed("too many trailer fields")
		}
		field, err := parseField(line)
		if err != nil {
			return err
		}
		if framesMessage(field.Name) {
			return malformed("field %s in a trailer", field.Name)
		}
		b.trailer = append(b.trailer, field)
	}
}

// framesMessage knows the fields that come too late in a trailer (RFC 9110
// section 6.5.1).
func framesMessage(name string) bool {
	return fold(name, "content-length") || fold(name, "transfer-encoding") || fold(name, "host")
}
