//go:build unix

package transport

import (
	"errors"
	"syscall"
)

// prepareLook makes what silent needs, so that looking allocates nothing.
func (c *conn) prepareLook() {
	s, ok := c.Conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	c.peek = raw
	c.look = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.lookedOK = errors.Is(err, syscall.EAGAIN)
		return true
	}
}

// silent reports whether nothing came on an idle connection: neither its end
// nor bytes that nobody asked for.
func (c *conn) silent() bool {
	if c.peek == nil {
		return true
	}
	c.lookedOK = false
	return c.peek.Read(c.look) == nil && c.lookedOK
}
