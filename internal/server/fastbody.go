package server

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/http1"
)

// fastBody is a request's body on the fast path. Reads come from whoever sends
// it on, also while the answer is under way, but none after finish. nil is the
// body of a request that has none.
type fastBody struct {
	c            *fastConn
	begun, ended atomic.Bool

	mu     sync.Mutex // held while reading
	b      http1.Body
	closed bool
}

// Read reads from the client.
func (b *fastBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errFinished
	}
	b.begun.Store(true)
	n, err := b.b.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

// Here is how much can be read without waiting.
func (b *fastBody) Here() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Here()
}

// complete reports whether the body was read, or could be because it is small
// and nobody began to: then the next request can follow the answer.
func (b *fastBody) complete() bool {
	if b == nil || b.ended.Load() {
		return true
	}
	if b.begun.Load() || b.c.head.Length < 0 || b.c.head.Length > swallowLimit {
		return false
	}
	if b.c.conn.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, b); err != nil {
		return false
	}
	b.c.noDeadline()
	return true
}

// finish ends all reading and reports whether the body was read to its end.
func (b *fastBody) finish() bool {
	if b == nil || b.ended.Load() {
		return true
	}
	_ = b.c.conn.SetReadDeadline(past) // a read under way ends
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return false
}

// watch notices a client that goes away while its request is answered. Most
// answers come at once: the timer is left to run from one request to the next,
// and sees what there is to do when it has run out.
type watch struct {
	c *fastConn

	mu    sync.Mutex
	timer *time.Timer
	armed bool      // the timer runs
	since time.Time // when the request began; zero: there is none
	body  *fastBody
	ended chan struct{} // closed when the read under way has ended; nil: there is none
	extra []byte        // the byte that it read, when it did
}

// watchAfter is how long an answer may take before the client is watched.
const watchAfter = 100 * time.Millisecond

func (w *watch) begin(body *fastBody) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.body = now, body
	if !w.armed {
		w.arm(watchAfter)
	}
}

// arm lets the timer run.
func (w *watch) arm(d time.Duration) {
	w.armed = true
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.look)
	} else {
		w.timer.Reset(d)
	}
}

// look begins to read, once the answer has taken its time and the request's body
// is read.
func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = false
	if w.since.IsZero() || w.ended != nil {
		return // the next request arms the timer
	}
	left := watchAfter - time.Since(w.since)
	if left > 0 {
		w.arm(left)
		return
	}
	if w.body != nil && !w.body.ended.Load() {
		w.arm(watchAfter)
		return
	}
	ended := make(chan struct{})
	w.ended = ended
	_ = w.c.conn.SetReadDeadline(time.Time{}) // fastConn.until is the answering goroutine's; end sets it
	go w.read(ended)
}

func (w *watch) read(ended chan struct{}) {
	defer close(ended)
	var b [1]byte
	n, err := w.c.io.Read(b[:])
	if n > 0 {
		w.extra = b[:]
		return
	}
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() { // else end has called us back
		w.c.cancel()
	}
}

// end stops watching and puts back what was read.
func (w *watch) end() {
	w.mu.Lock()
	w.since, w.body = time.Time{}, nil
	ended := w.ended
	w.ended = nil
	w.mu.Unlock()
	if ended == nil {
		return
	}
	_ = w.c.conn.SetReadDeadline(past) // the read ends now
	<-ended
	w.c.noDeadline()
	w.c.in.Put(w.extra)
	w.extra = nil
}

// reset closes a connection so that its end does not pass for the end of an
// answer, as it would over HTTP/1.0.
func reset(conn net.Conn) {
	below := wire(conn)
	if tcp, ok := below.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0) // at worst the end is an orderly one
	}
	_ = below.Close() // first, or TLS would say that this is the end
	_ = conn.Close()  // it is given up
}
