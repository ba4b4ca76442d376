//go:build !linux

package netio

// fast is nothing here: the connection's own methods do.
type fast struct{}

func (c *Conn) prepare() {}

// Ahead reports false: this system gains nothing by it.
func (c *Conn) Ahead([]byte) bool { return false }

// Sent is how many of the bytes given to the last Ahead have left.
func (c *Conn) Sent() int { return 0 }
