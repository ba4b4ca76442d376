package server

import (
	"net"
	"sync"
)

// handover is the listener that net/http gets its connections from: those that
// began on the fast path.
type handover struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	bare map[*handed]bool // open ones that speak HTTP/1.0
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{}), bare: map[*handed]bool{}}
}

// put hands a connection over; false means that nobody takes it any more. The
// end of a bare one, which speaks HTTP/1.0, may be that of an answer.
func (h *handover) put(c *handed, bare bool) bool {
	if bare {
		h.mu.Lock()
		h.bare[c] = true
		h.mu.Unlock()
	}
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		h.forget(c)
		return false
	}
}

func (h *handover) forget(c *handed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bare, c)
}

// cut makes sure that no answer that is cut off from here on passes for a whole
// one.
func (h *handover) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.bare {
		_ = c.SetLinger(0) // at worst the end is an orderly one
	}
}

// Accept implements [net.Listener].
func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements [net.Listener].
func (h *handover) Addr() net.Addr { return h.addr }

// handed is a connection that was handed over.
type handed struct {
	readAgain
	from *handover
}

// Close closes the connection.
func (c *handed) Close() error {
	c.from.forget(c)
	return c.readAgain.Close()
}
