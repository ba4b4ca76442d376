package http1

import (
	"bytes"
	"errors"
	"io"
)

// Reader reads messages from a connection. It buffers what comes with a head
// and hands it on as the beginning of the body, or of the next message. It is
// not safe for concurrent use.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int // what is read and not used is buf[r:w]

	passed int // bytes of empty lines in front of the next head
}

// bufferSize is what a reader has at first and keeps: heads are rarely larger.
const bufferSize = 4 << 10

// NewReader returns a reader of src.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, bufferSize)}
}

// Buffered returns what was read and not used yet; it stays unused.
func (r *Reader) Buffered() []byte { return r.buf[r.r:r.w] }

// Put appends bytes that somebody else read from the source.
func (r *Reader) Put(b []byte) {
	for _, c := range b {
		if r.w == len(r.buf) {
			r.makeRoom()
		}
		r.buf[r.w] = c
		r.w++
	}
}

// Complete reports whether a whole head was read already.
func (r *Reader) Complete() bool { return bytes.Contains(r.buf[r.r:r.w], headEnd) }

// makeRoom moves what is unused to the front, or doubles the buffer.
func (r *Reader) makeRoom() {
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
		return
	}
	r.buf = append(r.buf, make([]byte, len(r.buf))...)
}

// Wait blocks until there is at least one byte, or the source fails.
func (r *Reader) Wait() error {
	if r.r < r.w {
		return nil
	}
	return r.fill()
}

// fill reads once from the source.
func (r *Reader) fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
		if len(r.buf) > bufferSize { // it grew for a large head
			r.buf = make([]byte, bufferSize)
		}
	}
	if r.w == len(r.buf) {
		r.makeRoom()
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

var headEnd = []byte("\r\n\r\n")

// PassEmpty waits until a head begins, and passes over empty lines in front of
// it, two at most. The error is the source's, or an *[Error].
func (r *Reader) PassEmpty() error {
	for ; ; r.passed++ {
		if err := r.Wait(); err != nil {
			return err
		}
		if c := r.buf[r.r]; c != '\r' && c != '\n' {
			return nil
		}
		if r.passed == 4 {
			return malformed("empty lines where a message was expected")
		}
		r.r++
	}
}

// ReadHead returns the next head with its empty line. Empty lines in front of
// it are passed over (RFC 9112 section 2.2). The error is the source's (io.EOF
// only when nothing came at all), [ErrHeadTooLarge], or an *[Error] as soon as
// it is certain that no head will follow.
func (r *Reader) ReadHead() (string, error) {
	if err := r.PassEmpty(); err != nil {
		return "", err
	}
	for searched := 0; ; {
		head := r.buf[r.r:r.w]
		if i := bytes.Index(head[searched:], headEnd); i >= 0 {
			end := searched + i + len(headEnd)
			r.r += end
			r.passed = 0
			return string(head[:end]), nil
		}
		// A head without a CR before its line ends would be waited for in vain.
		if i := bytes.IndexByte(head[searched:], '\n'); i >= 0 && (searched+i == 0 || head[searched+i-1] != '\r') {
			return "", malformed("a line does not end with CR LF")
		}
		if len(head) >= MaxHead {
			return "", ErrHeadTooLarge
		}
		searched = max(len(head)-len(headEnd)+1, 0)
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

// Read reads what is buffered, else from the source.
func (r *Reader) Read(p []byte) (int, error) {
	if r.r == r.w {
		return r.src.Read(p)
	}
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	return n, nil
}

// line returns the next line without its end, at most limit bytes; it stays
// valid until the next call.
func (r *Reader) line(limit int) (string, error) {
	for searched := 0; ; {
		text := r.buf[r.r:r.w]
		if i := bytes.IndexByte(text[searched:], '\n'); i >= 0 {
			end := searched + i
			if end > limit {
				return "", malformed("a line is too long")
			}
			r.r += end + 1
			line, _, err := cutLine(string(text[:end+1]))
			return line, err
		}
		if len(text) > limit {
			return "", malformed("a line is too long")
		}
		searched = len(text)
		if err := r.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}
