package transport

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/netio"
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

	h2 h2pool
}

// take returns a connection that is idle since a time, or for less long, and that
// the node has not closed, or nil.
func (p *pool) take(since time.Time) *conn {
	for {
		p.mu.Lock()
		last := len(p.idle) - 1
		if last < 0 || p.idle[last].idleSince.Before(since) {
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
	left = p.h2.expire(before) || p.used.After(before)
	p.gone = !left && p.h2.forget()
	left = !p.gone
	p.mu.Unlock()
	for _, c := range old {
		_ = c.Close() // nothing is lost with it
	}
	return left
}

// conn is a connection to a node.
type conn struct {
	*netio.Conn
	pool  *pool
	in    *http1.Reader
	out   []byte    // a head, and what goes along with it, on its way out
	until time.Time // the deadline for reading that is set, if it was set by hurry

	x       exchange
	trailer func() httpmsg.Header // of x's answer

	used      bool      // it has carried an exchange before
	idleSince time.Time // zero: it comes from no pool
}

// silent reports whether the node has not closed an idle connection, as far as is
// known. Over TLS, what comes before the first answer is of the handshake still.
func (c *conn) silent() bool { return !c.used || c.Silent() }

// kept reports whether the connection was idle, so that its node may have closed it
// just as it was taken.
func (c *conn) kept() bool { return !c.idleSince.IsZero() }

func newConn(p *pool, raw net.Conn) *conn {
	c := &conn{Conn: netio.New(raw), pool: p, out: make([]byte, 0, 2<<10)}
	c.in = http1.NewReader((*source)(c))
	c.trailer = c.x.body.Trailer
	return c
}
