package transport

import (
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/http1"
)

// pool holds the idle connections to one peer, the one used last on top: a
// few stay in use, the others expire.
type pool struct {
	client *Client
	peer   discovery.Peer

	mu   sync.Mutex
	idle []*conn
	used time.Time // when a connection was last put back
	gone bool      // forgotten by the client
}

// take returns an idle connection that the node has not closed, or nil.
func (p *pool) take() *conn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[last]
		p.idle[last] = nil
		p.idle = p.idle[:last]
		p.mu.Unlock()
		if c.silent() {
			return c
		}
		_ = c.Close() // it was dead
	}
}

// put takes a connection back, or closes it.
func (p *pool) put(c *conn) {
	c.idleSince = time.Now()
	c.used = true
	p.mu.Lock()
	p.used = c.idleSince
	first := len(p.idle) == 0
	keep := !p.gone && len(p.idle) < p.client.poolSize
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		_ = c.Close() // nothing is lost with it
	} else if first && !p.client.sweepLater() {
		p.expire(forever())
	}
}

// expire closes connections that are idle since before a time, or that the
// node has closed, and reports whether the pool is in use: one that was last
// filled before that time is no longer filled. A pool may be empty because its
// connections are all at work.
func (p *pool) expire(before time.Time) (left bool) {
	var old []*conn
	p.mu.Lock()
	p.idle = slices.DeleteFunc(p.idle, func(c *conn) bool {
		if c.idleSince.After(before) && c.silent() {
			return false
		}
		old = append(old, c)
		return true
	})
	left = p.used.After(before)
	p.gone = !left
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nothing is lost with it
	}
	return left
}

// conn is a connection to a node.
type conn struct {
	net.Conn
	pool *pool
	in   *http1.Reader
	out  []byte // a head, and what goes along with it, on its way out

	used      bool // it has carried an exchange before
	idleSince time.Time

	peek     syscall.RawConn
	look     func(fd uintptr) bool // made once, see silent
	lookedOK bool
}

func newConn(p *pool, raw net.Conn) *conn {
	c := &conn{Conn: raw, pool: p, in: http1.NewReader(raw), out: make([]byte, 0, 2<<10)}
	c.prepareLook()
	return c
}

// CloseWrite ends one direction, for tunnels.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// Read reads what came with a head first, for tunnels.
func (c *conn) Read(p []byte) (int, error) { return c.in.Read(p) }
