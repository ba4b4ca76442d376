package netio

import (
	"io"
	"net"
	"os"
	"syscall"
)

// fast is the state of the system calls on a socket. The functions are made
// once a connection: a closure a call would be an allocation a call.
type fast struct {
	ahead   []byte   // leaves with the next Read
	sent    int      // how much of it has left
	in      transfer // of one reader
	out     transfer // of one writer
	readFd  func(fd uintptr) bool
	writeFd func(fd uintptr) bool
	bothFd  func(fd uintptr) bool
}

// transfer is one call of Read or Write.
type transfer struct {
	p     []byte
	n     int
	errno syscall.Errno
}

func (c *Conn) prepare() {
	c.readFd, c.writeFd, c.bothFd = c.readNow, c.writeNow, c.bothNow
}

// Ahead sets bytes that leave at the beginning of the next Read, which then
// waits for what comes back: where an answer takes its time, one attempt to
// read in vain is saved. When the socket does not take them at once that Read
// returns [ErrFull], and the rest is the caller's to write; when its deadline
// has passed before it began they stay for the next one, see [Conn.Sent].
// Nobody else writes, and b stays as it is, until they have left. It reports
// false where this cannot be done.
func (c *Conn) Ahead(b []byte) bool {
	if c.raw == nil || len(b) == 0 {
		return false
	}
	c.ahead, c.sent = b, 0
	return true
}

// Sent is how many of the bytes given to the last Ahead have left.
func (c *Conn) Sent() int { return c.sent }

// Read sends what was set by Ahead, waits, and reads. An error of the sending
// is returned by it, too.
func (c *Conn) Read(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.Conn.Read(p)
	}
	c.in = transfer{p: p}
	if c.ahead == nil {
		return c.received(c.raw.Read(c.readFd))
	}
	err := c.raw.Read(c.bothFd)
	if c.ahead != nil && err == nil {
		c.ahead = nil
		if c.in.errno == 0 {
			err = ErrFull
		}
	}
	return c.received(err)
}

// received is what a Read returns.
func (c *Conn) received(err error) (int, error) {
	n, errno := c.in.n, c.in.errno
	c.in = transfer{}
	switch {
	case errno != 0:
		return 0, c.failed("read", errno)
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// failed is the error net.Conn would give.
func (c *Conn) failed(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}

// bothNow sends at first, and reads when there is something. Because the sending
// stands inside of the read, the poller has forgotten by then what it knew of
// the socket: what it tells afterwards is news, and can be waited for.
func (c *Conn) bothNow(fd uintptr) bool {
	if c.ahead == nil {
		return c.readNow(fd)
	}
	n, errno := write(fd, c.ahead)
	if errno == 0 && n == len(c.ahead) {
		c.ahead, c.sent = nil, n
		return false // wait
	}
	if errno != 0 && errno != syscall.EAGAIN {
		c.in.errno = errno
		return true
	}
	c.sent = n
	return true
}

func (c *Conn) readNow(fd uintptr) bool {
	c.in.n, c.in.errno = read(fd, c.in.p)
	if c.in.errno == syscall.EAGAIN {
		c.in.errno = 0
		return false
	}
	return true
}

// Write writes all of p, unless it fails.
func (c *Conn) Write(p []byte) (int, error) {
	if c.raw == nil || len(p) == 0 {
		return c.Conn.Write(p)
	}
	c.out = transfer{p: p}
	err := c.raw.Write(c.writeFd)
	n, errno := c.out.n, c.out.errno
	c.out = transfer{}
	if errno != 0 {
		err = c.failed("write", errno)
	}
	return n, err
}

func (c *Conn) writeNow(fd uintptr) bool {
	t := &c.out
	for t.n < len(t.p) {
		n, errno := write(fd, t.p[t.n:])
		if errno == syscall.EAGAIN {
			return false
		}
		if errno != 0 {
			t.errno = errno
			return true
		}
		t.n += n
	}
	return true
}
