package tunnel

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// Conn is a connection some of which was read before it was handed on: Early
// is read first, what follows directly, past any reader that takes the end of
// what the peer sends for the end of the peer.
type Conn struct {
	net.Conn
	Early []byte
}

// Read reads what was read before first.
func (c *Conn) Read(p []byte) (int, error) {
	if len(c.Early) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.Early)
	if c.Early = c.Early[n:]; len(c.Early) == 0 {
		c.Early = nil // a tunnel may last: it needs none
	}
	return n, nil
}

// Buffered is how many bytes can be read that were read before, here or below.
func (c *Conn) Buffered() int {
	n := len(c.Early)
	if below, ok := c.Conn.(interface{ Buffered() int }); ok {
		n += below.Buffered()
	}
	return n
}

// SyscallConn is [net.TCPConn.SyscallConn]. It does not see what Buffered
// counts.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite closes the sending half.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// NetConn is the connection below, as [crypto/tls.Conn.NetConn].
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Abort closes a connection so that its peer sees it break rather than end: it
// is reset, and over TLS nothing says goodbye (RFC 8446 section 6.1).
func Abort(c io.Closer) {
	below := c
	for {
		above, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = above.NetConn()
	}
	if tcp, ok := below.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0) // at worst the end is an orderly one
	}
	_ = below.Close() // it is given up
	_ = c.Close()
}
