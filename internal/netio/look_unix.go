//go:build unix

package netio

import "syscall"

// Silent reports whether there is nothing to read, neither bytes nor an end. It
// does not wait, whatever the deadline is, and nobody reads meanwhile.
func (c *Conn) Silent() bool {
	if c.raw == nil {
		return true
	}
	c.silent = false
	return c.raw.Control(c.look) == nil && c.silent
}

func (c *Conn) lookNow(fd uintptr) { c.silent = peek(fd) == syscall.EAGAIN }
