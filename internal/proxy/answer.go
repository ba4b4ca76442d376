package proxy

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// answer streams a node's answer to the client.
func answer(resp *httpmsg.Response, w httpmsg.ResponseWriter) error {
	defer resp.Body.Close()
	w.Reason(resp.Reason)
	if err := w.Head(resp.Status, endToEnd(resp.Header, ""), resp.Length); err != nil {
		return httpmsg.ErrAborted
	}
	if err := copyBody(w, resp.Body); err != nil {
		return httpmsg.ErrAborted
	}
	if resp.Trailer == nil {
		return nil
	}
	if t := endToEnd(resp.Trailer(), ""); len(t) > 0 {
		if err := w.Trailer(t); err != nil {
			return httpmsg.ErrAborted
		}
	}
	return nil
}

// buffers hold pieces of bodies on their way through.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyBody copies an answer's body to the client piece by piece as the pieces
// come: an event must not wait for the next one.
func copyBody(w httpmsg.ResponseWriter, body io.Reader) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	n, err := firstPiece(w, body, buf[:])
	for {
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if err == nil {
				if werr := w.Flush(); werr != nil {
					return werr
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err = body.Read(buf[:])
	}
}

// headDelay is how long an answer's head waits for the body's first piece, to
// leave together with it.
const headDelay = time.Millisecond

// firstPiece reads the body's first piece. When that takes its time, the head
// goes ahead.
func firstPiece(w httpmsg.ResponseWriter, body io.Reader, buf []byte) (int, error) {
	if b, ok := body.(interface{ Here() bool }); ok && b.Here() {
		return body.Read(buf)
	}
	sent := make(chan error, 1)
	timer := time.AfterFunc(headDelay, func() { sent <- w.Flush() })
	n, err := body.Read(buf)
	if !timer.Stop() {
		if ferr := <-sent; ferr != nil && err == nil {
			err = ferr
		}
	}
	return n, err
}
