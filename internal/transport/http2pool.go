package transport

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// h2pool holds the HTTP/2 connections to one peer. The first one takes as many
// requests at a time as the node allows, then the next, so that those that are
// not needed any more become idle. The zero value is empty.
type h2pool struct {
	mu      sync.Mutex
	conns   []*h2conn
	dialing *h2dial // one is being made; nil: none is
	http1   bool    // the node chose HTTP/1.1 last
	gone    bool    // the pool was forgotten by the client
}

// h2dial is a connection in the making, which any number of requests wait for.
type h2dial struct {
	done chan struct{} // closed when one of the following is set
	conn *h2conn
	err  error
}

var (
	// errHTTP1 says that the node chose HTTP/1.1.
	errHTTP1 = errors.New("the node speaks HTTP/1.1")
	// errClosed is the failure of requests to a client that was closed.
	errClosed       = errors.New("the client is closed")
	errNoConnection = errors.New("no connection was made in time")
	errGone         = errors.New("the pool is gone")
	errNoStream     = errors.New("the node allows no requests on its connections")
	errLast         = errors.New("the connection takes no more requests")
)

// stream reserves a stream on a connection to the peer of p, which must be
// there within limit when that is not 0.
func (c *Client) stream(ctx context.Context, p *pool, limit time.Duration) (*h2conn, error) {
	for {
		conn, err := p.h2.reserve(ctx, c, p, limit)
		switch {
		case !errors.Is(err, errGone):
			return conn, err
		case c.isClosed():
			return nil, errClosed
		}
		p = c.pool(p.peer)
	}
}

// reserve finds or makes a connection that takes one more stream.
func (h *h2pool) reserve(ctx context.Context, c *Client, p *pool, limit time.Duration) (*h2conn, error) {
	var late <-chan time.Time
	for useless := 0; ; {
		h.mu.Lock()
		for _, conn := range h.conns {
			if conn.reserve() {
				h.mu.Unlock()
				return conn, nil
			}
		}
		switch {
		case h.gone:
			h.mu.Unlock()
			return nil, errGone
		case h.http1:
			h.mu.Unlock()
			return nil, errHTTP1
		}
		d := h.dialing
		if d == nil {
			d = &h2dial{done: make(chan struct{})}
			h.dialing = d
			go h.dial(c, p, d)
		}
		h.mu.Unlock()
		if limit > 0 && late == nil {
			timer := time.NewTimer(limit)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-d.done:
		case <-late:
			return nil, errNoConnection
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if d.err != nil {
			return nil, d.err
		}
		if err := d.conn.gone(); err != nil { // a node that ends them all would get them without end
			if useless++; useless == attempts {
				return nil, err
			}
		}
	}
}

// dial makes a connection. It belongs to no request: the one that asked for it
// may be gone when it is there.
func (h *h2pool) dial(c *Client, p *pool, d *h2dial) {
	defer close(d.done)
	raw, err := c.dial(context.Background(), p.peer, alpnHTTP2, alpnHTTP1)
	var conn *h2conn
	speaks2 := err == nil && negotiated(p.peer, raw)
	if speaks2 {
		conn, err = newH2conn(c, p.peer, raw)
	}
	if err == nil && !speaks2 {
		p.put(newConn(p, raw))
		err = errHTTP1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dialing = nil
	h.http1 = errors.Is(err, errHTTP1)
	switch {
	case err != nil:
		d.err = notCancelled(err)
	case c.isClosed():
		conn.close(errClosed)
		d.err = errClosed
	case conn.full():
		conn.close(errNoStream)
		d.err = errNoStream
	default:
		h.conns = append(slices.DeleteFunc(h.conns, (*h2conn).dead), conn)
		d.conn = conn
	}
}

// notCancelled keeps a dial's own timeout from passing for the caller's.
func notCancelled(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New(err.Error())
	}
	return err
}

// ask makes the next request ask the node again which protocol it speaks.
func (h *h2pool) ask() {
	h.mu.Lock()
	h.http1 = false
	h.mu.Unlock()
}

// expire closes connections that are idle since before a time and reports
// whether there are others. With a time to come, those in use are closed when
// they become idle.
func (h *h2pool) expire(before time.Time) (left bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := before.After(time.Now())
	h.conns = slices.DeleteFunc(h.conns, func(c *h2conn) bool { return c.expire(before, all) })
	return len(h.conns) > 0 || h.dialing != nil
}

// forget ends the pool when it is empty; false: it came into use again.
func (h *h2pool) forget() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = len(h.conns) == 0 && h.dialing == nil
	return h.gone
}
