package tunnel

import (
	"io"
	"sync"
)

// source reads a connection piece by piece.
type source interface {
	// next waits for a piece. It may come together with an error, as in
	// [io.Reader], and is valid until the following call.
	next() ([]byte, error)
	// release gives the buffers back.
	release()
}

// buffer is for a piece on its way.
type buffer [32 << 10]byte

var buffers = sync.Pool{New: func() any { return new(buffer) }}

// newSource returns the way to read from r that holds least while nothing
// comes.
func newSource(r io.Reader) source {
	if s := newRawSource(r); s != nil {
		return s
	}
	return &plainSource{r: r}
}

// plainSource reads from anything, TLS for one. It waits with a small buffer of
// its own and takes a large one when that was filled: there is more.
type plainSource struct {
	r     io.Reader
	small [1 << 10]byte
	large *buffer
	more  bool // the last read filled its buffer
}

func (s *plainSource) next() ([]byte, error) {
	if !s.more {
		s.release()
		n, err := s.r.Read(s.small[:])
		s.more = n == len(s.small)
		return s.small[:n], err
	}
	if s.large == nil {
		s.large = buffers.Get().(*buffer)
	}
	n, err := s.r.Read(s.large[:])
	s.more = n == len(s.large)
	return s.large[:n], err
}

func (s *plainSource) release() {
	if s.large != nil {
		buffers.Put(s.large)
		s.large = nil
	}
}
