package server

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/tunnel"
)

// How the end of an answer's body is told.
const (
	bodiless   = iota // there is none, whatever the header says
	sized             // by Content-Length
	chunked           // by the last chunk
	untilClose        // by the end of the connection (HTTP/1.0)
)

// together is the size in bytes up to which pieces are collected until a flush.
const together = 16 << 10

// writer is the httpmsg.ResponseWriter of the fast path. What is written is
// collected and leaves with Flush, or at the end: head and body of a small
// answer in one piece.
type writer struct {
	c         *fastConn
	body      *fastBody
	buf       []byte
	status    int // 0 until Head
	reason    string
	hasReason bool
	mode      int
	left      int64 // of a sized body
	sent      int64 // bytes of the body
	close     bool  // the connection ends with this answer
	upgraded  bool
	trailer   httpmsg.Header
	pieces    [3][]byte
}

// reset prepares the writer for the next answer.
func (w *writer) reset(body *fastBody) {
	if cap(w.buf) > 2*together {
		w.buf = nil
	}
	*w = writer{c: w.c, body: body, buf: w.buf[:0], close: w.c.head.Close || w.c.last.Load()}
}

// Informational sends a 1xx answer; HTTP/1.0 knows none (RFC 9110 section 15.2).
func (w *writer) Informational(status int, h httpmsg.Header) error {
	if w.status != 0 {
		return errAnswered
	}
	if w.c.head.Minor == 0 {
		return nil
	}
	w.buf = http1.AppendStatusLine(w.buf, status, http.StatusText(status))
	w.buf = append(http1.AppendFields(w.buf, h), "\r\n"...)
	return w.Flush()
}

// Reason sets the phrase of the status line.
func (w *writer) Reason(phrase string) { w.reason, w.hasReason = phrase, true }

// Head writes the answer's head. An answer to a request that has not been read
// is the connection's last (RFC 9112 section 9.6).
func (w *writer) Head(status int, h httpmsg.Header, length int64) error {
	if w.status != 0 {
		return errAnswered
	}
	w.close = w.close || w.c.last.Load() || !w.body.complete()
	w.status = status
	w.frame(length)
	if !w.hasReason {
		w.reason = http.StatusText(status)
	}
	w.buf = http1.AppendStatusLine(w.buf, status, w.reason)
	told := w.mode == chunked || w.mode == untilClose || length < 0 || status == http.StatusNoContent
	for i := range h {
		switch {
		case len(h[i].Name) == len("Content-Length") && strings.EqualFold(h[i].Name, "Content-Length"):
			if !told { // in its place, with the true value
				told = true
				w.buf = http1.AppendField(w.buf, h[i].Name, strconv.FormatInt(length, 10))
			}
		default:
			w.buf = http1.AppendField(w.buf, h[i].Name, h[i].Value)
		}
	}
	switch {
	case w.mode == chunked:
		w.buf = http1.AppendLength(w.buf, http1.Chunked)
	case !told:
		w.buf = http1.AppendLength(w.buf, length)
	}
	if w.close {
		w.buf = append(w.buf, "Connection: close\r\n"...)
	}
	w.buf = append(w.buf, "\r\n"...)
	return nil
}

// frame decides how the end of the body is told.
func (w *writer) frame(length int64) {
	switch {
	case w.c.head.Method == http.MethodHead, w.status == http.StatusNoContent, w.status == http.StatusNotModified:
		w.mode = bodiless
	case length >= 0:
		w.mode, w.left = sized, length
	case w.c.head.Minor == 0:
		w.mode, w.close = untilClose, true
		w.c.bare.Store(true)
	default:
		w.mode = chunked
	}
}

// Write takes a piece of the body.
func (w *writer) Write(b []byte) (int, error) {
	switch {
	case w.status == 0:
		return 0, errors.New("body without a head")
	case w.mode == bodiless || len(b) == 0:
		return len(b), nil
	}
	w.sent += int64(len(b))
	switch {
	case w.mode == sized:
		if w.left -= int64(len(b)); w.left < 0 {
			return 0, http.ErrContentLength
		}
	case w.mode == chunked:
		w.buf = http1.AppendChunkSize(w.buf, len(b))
	}
	tail := ""
	if w.mode == chunked {
		tail = "\r\n"
	}
	if len(w.buf)+len(b) <= together {
		w.buf = append(append(w.buf, b...), tail...)
		return len(b), nil
	}
	if len(w.buf) == 0 && tail == "" {
		return w.c.io.Write(b)
	}
	w.pieces = [3][]byte{w.buf, b, []byte(tail)}
	list := net.Buffers(w.pieces[:])
	_, err := list.WriteTo(w.c.conn)
	w.buf = w.buf[:0]
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush lets everything leave that was written.
func (w *writer) Flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.c.io.Write(w.buf)
	w.buf = w.buf[:0]
	return err
}

// Trailer keeps the trailer fields for the end.
func (w *writer) Trailer(h httpmsg.Header) error {
	w.trailer = h
	return nil
}

// finish completes the answer.
func (w *writer) finish() error {
	switch {
	case w.status == 0:
		return errors.New("no answer was given")
	case w.mode == sized && w.left > 0:
		return io.ErrUnexpectedEOF
	case w.mode == chunked:
		w.buf = http1.AppendLastChunk(w.buf, w.trailer)
	}
	return w.Flush()
}

// Upgrade sends the 101 and hands over the connection.
func (w *writer) Upgrade(h httpmsg.Header) (io.ReadWriteCloser, error) {
	if w.status != 0 {
		return nil, errAnswered
	}
	w.c.gone.end()
	w.c.noDeadline()
	w.c.bare.Store(true) // a tunnel that is cut must not seem to end
	w.status, w.upgraded = http.StatusSwitchingProtocols, true
	w.c.f.entrance.upgraded.Add(1)
	w.c.f.entrance.requests.Add(-1)
	w.buf = http1.AppendStatusLine(w.buf, w.status, http.StatusText(w.status))
	w.buf = append(http1.AppendFields(w.buf, h), "\r\n"...)
	if err := w.Flush(); err != nil {
		return nil, err
	}
	early := bytes.Clone(w.c.in.Buffered())
	w.buf, w.c.in = nil, nil // a tunnel may last: it needs none
	return &tunnel.Conn{Conn: w.c.conn, Early: early}, nil
}
