package server

import "net"

// readAgain is a connection some of which was read before: handed over to
// net/http, or upgraded. Beyond that it is read directly, past any reader that
// takes the end of what the client sends for the end of the client.
type readAgain struct {
	net.Conn
	read []byte
}

// Read reads what was read before first.
func (c *readAgain) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		if c.read = c.read[n:]; len(c.read) == 0 {
			c.read = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// CloseWrite closes the sending half.
func (c *readAgain) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SetLinger is [net.TCPConn.SetLinger].
func (c *readAgain) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}
