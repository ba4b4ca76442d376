//go:build unix

package netio

import "syscall"

// Silent reports whether there is nothing to read, neither bytes nor an end; over
// TLS, whether there is nothing that would have to be decrypted. It does not wait,
// whatever the deadline is, and nobody reads meanwhile.
func (c *Conn) Silent() bool {
	if c.socket == nil {
		return true
	}
	c.silent = false
	return c.socket.Control(c.look) == nil && c.silent
}

func (c *Conn) lookNow(fd uintptr) { c.silent = peek(fd) == syscall.EAGAIN }
