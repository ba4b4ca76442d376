package proxy

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/record"
	"github.com/micro/sidecar/internal/transport"
)

// answer streams the node's answer to the client.
func (p *passage) answer() error {
	resp, w := p.resp, p.w
	defer resp.Body.Close()
	grpc := resp.Length < 0 && transport.GRPCMessage(resp.Header)
	w.Reason(resp.Reason)
	if err := w.Head(resp.Status, endToEnd(resp.Header[:0], resp.Header, ""), resp.Length); err != nil {
		return httpmsg.ErrAborted
	}
	if err := copyBody(w, resp.Body); err != nil {
		err = p.outOfTime(err)
		record.Cut(p.service, p.node, err)
		return cutOff(grpc, w, err)
	}
	if resp.Trailer == nil {
		return nil
	}
	if t := endToEnd(nil, resp.Trailer(), ""); len(t) > 0 {
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
	p := piece{body: body}
	defer p.release()
	err := p.first(w)
	for {
		if p.n > 0 {
			if _, werr := w.Write(p.buf[:p.n]); werr != nil {
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
		err = p.next()
	}
}

// piece is a piece of a body.
type piece struct {
	body io.Reader
	buf  *[32 << 10]byte // nil while none is needed
	n    int
}

// headDelay is how long an answer's head waits for the body's first piece, to
// leave together with it.
const headDelay = time.Millisecond

// first reads the first piece. When that takes its time, the head goes ahead.
func (p *piece) first(w httpmsg.ResponseWriter) error {
	if b, ok := p.body.(interface{ Here() bool }); ok && b.Here() {
		return p.next()
	}
	sent := make(chan error, 1)
	timer := time.AfterFunc(headDelay, func() { sent <- w.Flush() })
	err := p.next()
	if !timer.Stop() {
		if ferr := <-sent; ferr != nil && err == nil {
			err = ferr
		}
	}
	return err
}

// next reads the next piece. A stream of events may say nothing for hours, and
// holds no buffer meanwhile.
func (p *piece) next() (err error) {
	if b, ok := p.body.(interface {
		Here() bool
		Wait()
	}); ok && !b.Here() {
		p.release()
		b.Wait()
	}
	if p.buf == nil {
		p.buf = buffers.Get().(*[32 << 10]byte)
	}
	p.n, err = p.body.Read(p.buf[:])
	return err
}

func (p *piece) release() {
	if p.buf != nil {
		buffers.Put(p.buf)
		p.buf = nil
	}
}
