//go:build unix

package tunnel

import (
	"errors"
	"io"
	"syscall"
)

// rawSource reads from a socket when there is something to read, and holds a
// buffer no longer than that.
type rawSource struct {
	early *Conn // what was read before; nil when that is gone
	conn  syscall.RawConn
	read  func(fd uintptr) bool // made once
	buf   *buffer
	n     int
	err   error
}

// newRawSource returns nil when r is no socket.
func newRawSource(r io.Reader) source {
	c, ok := r.(syscall.Conn)
	if !ok {
		return nil
	}
	conn, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &rawSource{conn: conn}
	s.early, _ = r.(*Conn)
	s.read = s.tryRead
	return s
}

func (s *rawSource) next() ([]byte, error) {
	if s.early != nil {
		if s.early.Buffered() > 0 {
			s.take()
			n, err := s.early.Read(s.buf[:])
			return s.buf[:n], err
		}
		s.early = nil
	}
	if err := s.conn.Read(s.read); err != nil { // closed
		return nil, err
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case s.n == 0:
		return nil, io.EOF
	}
	return s.buf[:s.n], nil
}

// tryRead reads what is there. It answers false when that is nothing, and is
// called again when there may be something: until then it needs no buffer.
func (s *rawSource) tryRead(fd uintptr) bool {
	s.take()
	for {
		s.n, s.err = syscall.Read(int(fd), s.buf[:])
		switch {
		case errors.Is(s.err, syscall.EINTR):
		case errors.Is(s.err, syscall.EAGAIN):
			s.release()
			return false
		default:
			return true
		}
	}
}

func (s *rawSource) take() {
	if s.buf == nil {
		s.buf = buffers.Get().(*buffer)
	}
}

func (s *rawSource) release() {
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
}
