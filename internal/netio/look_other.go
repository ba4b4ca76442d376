//go:build !unix

package netio

// Silent reports true: this system has no way to look without reading.
func (c *Conn) Silent() bool { return true }

func (c *Conn) lookNow(uintptr) {}
