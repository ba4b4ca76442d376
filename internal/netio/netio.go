// Package netio reads from and writes to connections with less work for the
// kernel and for Go's scheduler than [net.Conn] makes of it: the data plane
// spends most of its time there. It owns how bytes are moved, and nothing of
// what they mean.
//
// Sockets are non-blocking, so a system call on one never waits, and there is
// no need to tell the scheduler that a thread may be lost to it. On Linux TCP
// and unix sockets are therefore read and written without doing so, which also
// spares the runtime's monitor its intervention under load; waiting is the
// runtime's network poller's, as ever. Other connections, like TLS, and other
// systems use the connection's own methods: all behave alike.
package netio

import (
	"errors"
	"net"
	"syscall"
)

// Conn is a connection. Deadlines and Close are those of the connection in it.
// One goroutine may read while another one writes.
type Conn struct {
	net.Conn
	raw  syscall.RawConn // nil: the connection is no plain socket
	fast                 // what the system can do better

	socket syscall.RawConn  // what silence is looked for at: raw, or what is under TLS
	look   func(fd uintptr) // lookNow, made once
	silent bool             // what it found
}

// ErrFull is returned by a Read whose bytes ahead did not all fit into the
// socket; see [Conn.Ahead].
var ErrFull = errors.New("the socket takes no more for now")

// New returns c as a Conn; a Conn is returned as it is.
func New(c net.Conn) *Conn {
	if n, ok := c.(*Conn); ok {
		return n
	}
	n := &Conn{Conn: c}
	switch s := c.(type) {
	case *net.TCPConn:
		n.raw, _ = s.SyscallConn() // nil when the connection is closed: it says so itself
	case *net.UnixConn:
		n.raw, _ = s.SyscallConn()
	}
	if n.raw != nil {
		n.look = n.lookNow
		n.prepare()
	}
	n.socket = n.raw
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		if s, ok := over.NetConn().(syscall.Conn); ok {
			n.socket, _ = s.SyscallConn() // nil when the connection is closed
			n.look = n.lookNow
		}
	}
	return n
}

// CloseWrite closes the sending half, or everything when there are no halves.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Conn.Close()
}

// SetLinger is [net.TCPConn.SetLinger], where there is such a thing.
func (c *Conn) SetLinger(sec int) error {
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return tcp.SetLinger(sec)
	}
	return nil
}
