package transport

import (
	"net"
	"sync"
	"sync/atomic"
)

// countedConn counts the bytes that were written, which is how a failed
// request is known to have left nothing with the node.
type countedConn struct {
	net.Conn
	written atomic.Int64
}

// Write writes and counts.
func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written.Add(int64(n))
	return n, err
}

// CloseWrite ends one direction, for tunnels.
func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return net.ErrClosed
}

// sentLog notes the connections that a request was given, one after another
// when a kept one turned out to be dead, and how much had been written on each.
type sentLog struct {
	mu    sync.Mutex
	conns []sentMark
}

type sentMark struct {
	conn   *countedConn
	before int64
}

// got notes a connection.
func (l *sentLog) got(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := sentMark{}
	if cc, ok := conn.(*countedConn); ok {
		m = sentMark{cc, cc.written.Load()}
	}
	l.conns = append(l.conns, m)
}

// sent reports whether a byte of the request may have left.
func (l *sentLog) sent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.conns {
		if m.conn == nil || m.conn.written.Load() > m.before {
			return true
		}
	}
	return false
}
