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
	bare map[*readAgain]bool // open ones that speak HTTP/1.0
}

func newHandover(addr net.Addr) *handover {
	return &handover{addr: addr, conns: make(chan net.Conn), done: make(chan struct{}), bare: map[*readAgain]bool{}}
}

// put hands a connection over; false means that nobody takes it any more. The
// end of a bare one, which speaks HTTP/1.0, may be that of an answer.
func (h *handover) put(c *readAgain, bare bool) bool {
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

func (h *handover) forget(c *readAgain) {
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

// readAgain is a connection some of which was read before.
type readAgain struct {
	net.Conn
	from *handover
	read []byte
}

// Close closes the connection.
func (c *readAgain) Close() error {
	c.from.forget(c)
	return c.Conn.Close()
}

// Read reads what was read before first.
func (c *readAgain) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		if c.read = c.read[n:]; len(c.read) == 0 {
			c.read = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite closes the sending half.
func (c *readAgain) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SetLinger is [net.TCPConn.SetLinger].
func (c *readAgain) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}
