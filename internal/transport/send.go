package transport

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
)

// together is the size in bytes up to which a body that is here already goes
// out in one write with the head.
const together = 16 << 10

// WithHead reports whether the body of r leaves together with its head. Then r
// and its body are not used any more when [Client.Forward] has returned; others
// may be read for a moment longer.
func WithHead(r *httpmsg.Request) bool {
	return r.Length == 0 || r.Length > 0 && r.Length <= together && int64(here(r.Body)) >= r.Length && !waits(r)
}

// waits reports whether the body waits for the node's word (RFC 9110 section
// 10.1.1).
func waits(r *httpmsg.Request) bool {
	return r.Length != 0 && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// send writes the head and what is here of the body; a sender takes care of
// the rest while the answer is awaited.
func (x *exchange) send() error {
	r, c := x.request, x.conn
	if cap(c.out) > 2*together {
		c.out = nil
	}
	c.out = appendHead(c.out[:0], r)
	left := r.Length
	if left > 0 && WithHead(r) {
		x.bodyRead = true
		end := len(c.out)
		c.out = append(c.out, make([]byte, left)...)
		if _, err := io.ReadFull(r.Body, c.out[end:]); err != nil {
			x.sender = &sender{err: err}
			return err
		}
		left = 0
	}
	if left == 0 && c.Ahead(c.out) {
		return nil
	}
	x.tie()
	n, err := c.Write(c.out)
	x.wrote = n > 0
	if err != nil || left == 0 {
		x.unanswered = err != nil
		return err
	}
	x.sender = &sender{conn: c, request: r, done: make(chan struct{})}
	if waits(r) {
		x.sender.word = make(chan bool, 1)
	} else {
		// The reading begins here and not some time later: the body's owner may
		// throw away what nobody reads when the answer comes.
		x.sender.begun = true
		_, _ = r.Body.Read(nil) // nothing is read, an error comes again
	}
	go x.sender.run()
	return nil
}

// here is how much of a body can be read without waiting.
func here(body io.Reader) int {
	switch b := body.(type) {
	case *bytes.Reader:
		return b.Len()
	case interface{ Here() int }:
		return b.Here()
	}
	return 0
}

// appendHead appends the request's head. Content-Length stays where it was;
// what frames the body follows from its length alone, whatever the header says.
func appendHead(b []byte, r *httpmsg.Request) []byte {
	b = http1.AppendRequestLine(b, r.Method, r.Target, r.Host)
	told := false
	for _, f := range r.Header {
		switch {
		case strings.EqualFold(f.Name, "Content-Length"):
			if r.Length >= 0 && !told {
				told = true
				b = http1.AppendField(b, f.Name, strconv.FormatInt(r.Length, 10))
			}
		case strings.EqualFold(f.Name, "Transfer-Encoding"), strings.EqualFold(f.Name, "Host"):
		default:
			b = http1.AppendField(b, f.Name, f.Value)
		}
	}
	if !told && r.Length != 0 {
		b = http1.AppendLength(b, r.Length)
	}
	return append(b, "\r\n"...)
}

// announced returns the Content-Length that a header tells, or -1.
func announced(h httpmsg.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// sender streams a request's body to the node while the answer is awaited. A
// nil sender is one that had nothing to do.
type sender struct {
	conn    *conn
	request *httpmsg.Request
	done    chan struct{} // closed when the body was sent, or could not be
	last    atomic.Bool   // its last piece is being sent
	word    chan bool     // the node's word on "Expect: 100-continue"; nil: none is awaited

	mu      sync.Mutex
	begun   bool  // the body is being read
	refused bool  // it never will be
	err     error // of reading the body: the client's fault
	out     error // of writing it
}

// goAhead says that the node wants the body.
func (s *sender) goAhead() { s.tell(true) }

// refuse says that the node has answered without it, or never will answer. It
// reports whether the body is untouched, and remains so.
func (s *sender) refuse() (untouched bool) {
	if s == nil {
		return true
	}
	s.mu.Lock()
	s.refused = true
	untouched = !s.begun
	s.mu.Unlock()
	s.tell(false)
	return untouched
}

func (s *sender) tell(wanted bool) {
	if s == nil {
		return
	}
	select {
	case s.word <- wanted:
	default:
	}
}

// end waits until the body is no longer read. The connection is closed, and
// reading does not wait for anybody.
func (s *sender) end() {
	if s != nil && s.done != nil {
		<-s.done
	}
}

// lastMoment is how long an exchange that is over waits for its sender.
const lastMoment = 50 * time.Millisecond

// finished reports whether the body was sent completely. A node that has
// answered has the last piece, though its sender may not have got round to
// saying so.
func (s *sender) finished() bool {
	if s == nil {
		return true
	}
	if s.last.Load() {
		select {
		case <-s.done:
		case <-time.After(lastMoment):
		}
	}
	select {
	case <-s.done:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err == nil && s.out == nil
	default:
		return false
	}
}

// problem is the error of reading the body, if any so far.
func (s *sender) problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

var errRefused = errors.New("the node did not want the body")

func (s *sender) run() {
	defer close(s.done)
	if s.word != nil && !s.wait() {
		s.fail(nil, errRefused)
		return
	}
	var err error
	if s.request.Length < 0 {
		err = s.chunks()
	} else {
		err = s.plain()
	}
	if err != nil {
		s.fail(nil, err)
	}
}

// wait waits for the node's word and reports whether the body is to be sent;
// without a word it is sent after a while.
func (s *sender) wait() bool {
	patience := time.NewTimer(continueTimeout)
	defer patience.Stop()
	wanted := true
	select {
	case wanted = <-s.word:
	case <-patience.C:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begun = wanted && !s.refused
	return s.begun
}

// fail notes an error. When it is the client's the connection is closed, so
// that nobody waits for an answer to half a request.
func (s *sender) fail(reading, writing error) {
	s.mu.Lock()
	if s.err == nil && s.out == nil {
		s.err, s.out = reading, writing
	}
	s.mu.Unlock()
	if reading != nil {
		_ = s.conn.Conn.Close() // whoever reads from it finds s.err
	}
}

// errCut ends a sender whose failure is noted already.
var errCut = errors.New("the body broke off")

// read reads a piece of the body and tells the client's errors apart.
func (s *sender) read(p []byte) (n int, end bool, err error) {
	n, err = s.request.Body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.fail(err, nil)
		return n, false, errCut
	}
	return n, err != nil, nil
}

var pieces = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// plain sends a body whose length was told.
func (s *sender) plain() error {
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	for left := s.request.Length; left > 0; {
		n, end, err := s.read(buf[:min(left, int64(len(buf)))])
		if err != nil {
			return err
		}
		left -= int64(n)
		s.last.Store(left == 0)
		if n > 0 {
			if _, err := s.conn.Write(buf[:n]); err != nil {
				return err
			}
		}
		if end && left > 0 {
			s.fail(io.ErrUnexpectedEOF, nil)
			return errCut
		}
	}
	return nil
}

// chunks sends a body that ends when it ends, each piece as it comes.
func (s *sender) chunks() error {
	const room = 16 // for the line in front of a chunk
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	for {
		n, end, err := s.read(buf[room : len(buf)-room])
		if err != nil {
			return err
		}
		out := buf[room:room]
		if n > 0 {
			var line [room]byte
			size := http1.AppendChunkSize(line[:0], n)
			start := room - len(size)
			copy(buf[start:], size)
			out = append(buf[start:room+n], "\r\n"...)
		}
		if end {
			out = http1.AppendLastChunk(out, s.trailer())
			s.last.Store(true)
		}
		if len(out) > 0 {
			if _, err := s.conn.Write(out); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// trailer returns the trailer fields that can be written.
func (s *sender) trailer() httpmsg.Header {
	if s.request.Trailer == nil {
		return nil
	}
	var out httpmsg.Header
	for _, f := range s.request.Trailer() {
		if http1.IsToken(f.Name) && http1.IsValue(f.Value) && !frames(f.Name) {
			out = append(out, f)
		}
	}
	return out
}
