package server

import (
	"crypto/tls"
	"net"
	"sync"

	"github.com/micro/sidecar/internal/tunnel"
)

// handover is the listener that net/http gets its connections from: those that
// began on the fast path.
type handover struct {
	addr   net.Addr
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
	room   *room
	refuse func(net.Conn, error) // answers a request that cannot be read

	mu    sync.Mutex
	bare  map[*handed]bool // open ones that speak HTTP/1.0
	http2 map[*http2Conn]bool
}

func newHandover(addr net.Addr, room *room, refuse func(net.Conn, error)) *handover {
	return &handover{
		addr: addr, room: room, refuse: refuse, conns: make(chan net.Conn), done: make(chan struct{}),
		bare: map[*handed]bool{}, http2: map[*http2Conn]bool{},
	}
}

// put hands a connection over that speaks HTTP/1, some of which was read;
// false means that nobody takes it any more. The end of a bare one, which
// speaks HTTP/1.0, may be that of an answer.
func (h *handover) put(conn net.Conn, read []byte, bare, loopback bool) bool {
	c := &handed{Conn: tunnel.Conn{Conn: conn, Early: read}, from: h, loopback: loopback}
	c.in = newStrict(&c.Conn, func(err error) { h.refuse(conn, err) })
	if bare {
		h.mu.Lock()
		h.bare[c] = true
		h.mu.Unlock()
	}
	if secure, ok := conn.(*tls.Conn); ok {
		if h.send(&handedTLS{c, secure}) {
			return true
		}
	} else if h.send(c) {
		return true
	}
	h.forget(c)
	return false
}

// putHTTP2 is put for HTTP/2; state is that of the TLS below, if there is any.
func (h *handover) putHTTP2(conn net.Conn, read []byte, state *tls.ConnectionState, loopback bool) bool {
	c := newHTTP2Conn(conn, read, state, h)
	c.loopback = loopback
	h.mu.Lock()
	h.http2[c] = true
	h.mu.Unlock()
	if h.send(c) {
		return true
	}
	h.forgetHTTP2(c)
	return false
}

func (h *handover) send(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handover) forget(c *handed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.bare, c)
}

func (h *handover) forgetHTTP2(c *http2Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.http2, c)
}

// cut makes sure that no answer that is cut off from here on passes for a whole
// one, and ends HTTP/2 without a word: saying it to a client that does not read
// takes its time.
func (h *handover) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.bare {
		reset(wire(c))
	}
	for c := range h.http2 {
		_ = wire(c.Conn).Close() // whoever uses it finds out
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
	tunnel.Conn
	from     *handover
	in       *strict
	loopback bool      // as in httpmsg.Request
	left     sync.Once // the room
}

// Read reads what passes.
func (c *handed) Read(p []byte) (int, error) { return c.in.Read(p) }

// Buffered is [tunnel.Conn.Buffered].
func (c *handed) Buffered() int { return c.in.left() }

// Close closes the connection.
func (c *handed) Close() error {
	c.from.forget(c)
	defer c.left.Do(c.from.room.leave)
	return c.Conn.Close()
}

// handedTLS is one with TLS: net/http asks it for the state.
type handedTLS struct {
	*handed
	conn *tls.Conn
}

// ConnectionState returns the state of the TLS connection.
func (c *handedTLS) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }
