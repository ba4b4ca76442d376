// Package transport calls one node that somebody else has chosen: it forwards
// an HTTP request as it is, or makes a call in the RPC form that the node
// speaks. It keeps the connections to the nodes and says, when a call failed,
// whether anything of it can have reached the node. It does not choose nodes,
// does not try again on another one, and sets no deadline of its own but the
// one for connecting.
package transport

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

// Options are the settings of a [Client]; a zero field means its default.
type Options struct {
	// PoolSize is how many idle connections are kept a node; 0 means 1024, a
	// negative one none.
	PoolSize int
	// DialTimeout limits how long a connection may take to be made; 0 means
	// one second. The context's deadline holds beside it.
	DialTimeout time.Duration
	// MaxBody is the largest answer to a [Client.Call] in bytes; 0 means 4 MiB.
	MaxBody int64
	// TLS is how nodes that ask for TLS are connected to; nil means that their
	// certificates are verified with the system's roots. The client sets the
	// server name and ALPN itself.
	TLS *tls.Config
}

// Client calls nodes. It is safe for concurrent use.
type Client struct {
	dialer   net.Dialer
	tls      *tls.Config   // of connections to nodes; without a name
	every    time.Duration // how often HTTP/2 connections are looked at
	poolSize int
	maxBody  int64
	streams  atomic.Uint64 // see raw

	pools   peers
	schemas schemas // of gRPC nodes

	mu     sync.Mutex
	sweep  *time.Timer // runs while there may be idle connections
	closed bool
}

const (
	defaultPoolSize    = 1024
	defaultDialTimeout = time.Second
	defaultMaxBody     = 4 << 20

	// idleTimeout is how long an idle connection is kept.
	idleTimeout = 90 * time.Second
	// young is for how long one is good for a request that would be lost if its
	// node closed it at that very moment: less than servers allow, of which
	// Gunicorn allows 2 s, Node.js and Apache 5 s, and nginx 75 s.
	young = time.Second
	// sweepInterval is how long a connection that its node has closed may stay.
	sweepInterval = 5 * time.Second
	// continueTimeout is how long a body that came with "Expect: 100-continue"
	// waits for the node's word before it is sent all the same (RFC 9110
	// section 10.1.1).
	continueTimeout = time.Second
)

// New returns a client. Close it when it is no longer used.
func New(o Options) *Client {
	if o.PoolSize == 0 {
		o.PoolSize = defaultPoolSize
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = defaultDialTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &Client{dialer: dialer(o.DialTimeout), tls: o.TLS, every: checkInterval, poolSize: o.PoolSize, maxBody: o.MaxBody}
}

// Close closes the idle connections; those in use are closed when their
// exchange ends.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	if c.sweep != nil {
		c.sweep.Stop()
	}
	c.mu.Unlock()
	c.schemas.close()
	for _, p := range c.pools.all() {
		p.expire(forever())
	}
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// forever is a time that no connection is used after.
func forever() time.Time { return time.Now().Add(idleTimeout) }

// pool returns the connections to peer.
func (c *Client) pool(peer discovery.Peer) *pool {
	if p := c.pools.get(peer); p != nil {
		return p
	}
	p, known := c.pools.add(&pool{client: c, peer: peer, used: time.Now()})
	if !known {
		c.sweepLater() // a closed client forgets it at the end of the exchange
	}
	return p
}

// connect returns a connection that was idle for no longer than age, or when there
// is none, a new one, which must be there within limit when that is not 0.
func (c *Client) connect(ctx context.Context, p *pool, age time.Duration, limit time.Duration) (*conn, error) {
	if age > 0 {
		if conn := p.take(time.Now().Add(-age)); conn != nil {
			return conn, nil
		}
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	raw, err := c.dial(ctx, p.peer, alpnHTTP1)
	if err != nil {
		p.h2.ask()
		return nil, err
	}
	return newConn(p, raw), nil
}

// sweepLater makes sure that idle connections are looked at in time.
func (c *Client) sweepLater() (ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && c.sweep == nil {
		c.sweep = time.AfterFunc(sweepInterval, c.sweepNow)
	}
	return !c.closed
}

// sweepNow closes connections that were idle for too long, forgets nodes that
// were not called for as long, and goes on while there are some.
func (c *Client) sweepNow() {
	c.mu.Lock()
	c.sweep = nil
	c.mu.Unlock()
	left := false
	for _, p := range c.pools.all() {
		if p.expire(time.Now().Add(-idleTimeout)) {
			left = true
		} else {
			// Whoever holds on to it meanwhile finds it no longer shared, and its
			// connections are closed after use.
			c.pools.remove(p)
		}
	}
	if left {
		c.sweepLater()
	}
}
