package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/httpmsg"
)

// h2stream is one request and its answer on a connection.
type h2stream struct {
	ctx     context.Context
	conn    *h2conn
	request *httpmsg.Request // the caller's: not used after the answer's head came
	method  string
	id      uint32

	wrote   bool        // some of the request has left, or may have
	inline  int         // how much of the body went with the head
	sentEnd atomic.Bool // the request is complete
	sender  *h2sender   // sends the body meanwhile; nil when there is none to send
	closed  atomic.Bool // nobody wants anything of it any more
	over    atomic.Bool // nothing more is sent on it
	frames  uint64      // that had come on the connection when it began

	window  int64         // to the node; guarded by conn.mu
	widened chan struct{} // windows have grown

	came chan struct{} // one of the following has changed
	mu   sync.Mutex
	hint []informational
	data bytes.Buffer // of the body, and not read yet
	room int          // what the node may send
	read int          // what was read and not given back to the node as room
	left int64        // what is missing of the announced length, -1 when there is none
	tail httpmsg.Header
	end  bool // the answer is complete
	err  error

	status   int
	header   httpmsg.Header
	response httpmsg.Response
}

type informational struct {
	status int
	header httpmsg.Header
}

func newStream(ctx context.Context, conn *h2conn, r *httpmsg.Request) *h2stream {
	s := &h2stream{ctx: ctx, conn: conn, request: r, method: r.Method, room: streamWindow, came: make(chan struct{}, 1), widened: make(chan struct{}, 1)}
	s.sender = newH2sender(s)
	s.frames = conn.frames.Load()
	return s
}

// ResetError is the failure of a stream that the node has reset.
type ResetError struct {
	// Code is one of RFC 9113 section 7.
	Code uint32
}

// Error names the code.
func (e *ResetError) Error() string {
	return fmt.Sprintf("the node reset the stream (%v)", http2.ErrCode(e.Code))
}

// wake tells the sender that there may be room.
func (s *h2stream) wake() { poke(s.widened) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// headers takes a header block: of a 1xx, of the answer or of its trailer. An
// error is a http2.StreamError.
func (s *h2stream) headers(f *http2.MetaHeadersFrame) error {
	wrong := func(what string) error {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol, Cause: errors.New(what)}
	}
	if f.Truncated {
		return wrong("the head is too large")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil || s.end:
		return nil
	case s.header != nil:
		if len(f.PseudoFields()) > 0 || !f.StreamEnded() {
			return wrong("the trailer is none")
		}
		s.tail = fields(f.RegularFields())
		return s.ended()
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case err != nil || len(f.PseudoValue("status")) != 3 || status < 100 || status == 101:
		return wrong("the status is none")
	case status < 200 && (f.StreamEnded() || len(s.hint) >= maxInformational):
		return wrong("nothing but 1xx")
	case status < 200:
		s.hint = append(s.hint, informational{status, fields(f.RegularFields())})
		poke(s.came)
		return nil
	}
	s.status, s.header = status, fields(f.RegularFields())
	s.left = announced(s.header)
	if s.bodyless() {
		s.left = 0
	}
	if f.StreamEnded() {
		return s.ended()
	}
	poke(s.came)
	return nil
}

// bodyless answers have no body, whatever length they tell.
func (s *h2stream) bodyless() bool {
	return s.method == "HEAD" || s.status == 204 || s.status == 304
}

// fields makes a header of the fields of a block.
func fields(list []hpack.HeaderField) httpmsg.Header {
	h := make(httpmsg.Header, len(list), len(list)+4)
	for i, f := range list {
		h[i] = httpmsg.Field{Name: f.Name, Value: f.Value}
	}
	return h
}

// ended notes that the node has sent everything.
func (s *h2stream) ended() error {
	if s.left > 0 {
		return http2.StreamError{StreamID: s.id, Code: http2.ErrCodeProtocol, Cause: errors.New("the body is shorter than announced")}
	}
	s.end = true
	poke(s.came)
	return nil
}

// data takes a piece of a body.
func (c *h2conn) data(f *http2.DataFrame) error {
	if c.received += f.Length; c.received >= connWindow/4 {
		more := c.received
		c.received = 0
		if err := c.write(func() error { return c.out.WriteWindowUpdate(0, more) }); err != nil {
			return err
		}
	}
	s := c.find(f.StreamID)
	if s == nil {
		return nil // it was cancelled, and the node does not know yet
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := f.Data()
	wrong := func(code http2.ErrCode, what string) error {
		return http2.StreamError{StreamID: s.id, Code: code, Cause: errors.New(what)}
	}
	switch {
	case s.err != nil:
		return nil
	case s.header == nil || s.end:
		return wrong(http2.ErrCodeProtocol, "a body out of place")
	case int(f.Length) > s.room:
		return wrong(http2.ErrCodeFlowControl, "more than there was room for")
	case s.left >= 0 && int64(len(b)) > s.left:
		return wrong(http2.ErrCodeProtocol, "the body is longer than announced")
	}
	s.room -= int(f.Length)
	s.read += int(f.Length) - len(b) // padding is read at once
	if s.left >= 0 {
		s.left -= int64(len(b))
	}
	s.data.Write(b)
	if f.StreamEnded() {
		return s.ended()
	}
	poke(s.came)
	return nil
}

// reset takes a RST_STREAM. After a complete answer it only says that the rest
// of the request is not wanted (RFC 9113 section 8.1).
func (s *h2stream) reset(code http2.ErrCode) {
	s.mu.Lock()
	complete := s.end
	s.mu.Unlock()
	s.over.Store(true)
	switch {
	case complete:
		s.sender.stop()
	case code == http2.ErrCodeRefusedStream:
		s.broke(fmt.Errorf("%w: %w", errUnprocessed, &ResetError{uint32(code)}))
	default:
		s.broke(&ResetError{uint32(code)})
	}
}

// broke ends the stream with an error, unless it was complete.
func (s *h2stream) broke(err error) {
	s.mu.Lock()
	if s.err == nil && !s.end {
		s.err = err
	}
	s.mu.Unlock()
	poke(s.came)
	s.sender.stop()
}

// fail ends a stream that the node has spoilt.
func (s *h2stream) fail(code http2.ErrCode, err error) {
	s.broke(err)
	s.cancel(code)
}

// exchange sends the request and waits for the answer's head.
func (s *h2stream) exchange(f *Forwarding) error {
	if err := s.send(); err != nil {
		return err
	}
	var late <-chan time.Time
	if f.HeadTimeout > 0 {
		timer := time.NewTimer(f.HeadTimeout)
		defer timer.Stop()
		late = timer.C
	}
	for {
		s.mu.Lock()
		hints, there, err := s.hint, s.header != nil, s.err
		s.hint = nil
		s.mu.Unlock()
		for _, h := range hints {
			if h.status == 100 {
				s.sender.goAhead()
			} else if f.Informational != nil {
				f.Informational(h.status, h.header)
			}
		}
		switch {
		case there:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-s.came:
		case <-late:
			s.conn.doubt(s.frames)
			return errSlow
		case <-s.ctx.Done():
			s.conn.doubt(s.frames)
			return s.ctx.Err()
		}
	}
}

// answer makes the answer that the caller gets.
func (s *h2stream) answer() *httpmsg.Response {
	s.sender.refuse() // a body that waits for a 100 is not wanted
	s.mu.Lock()
	defer s.mu.Unlock()
	s.response = httpmsg.Response{Status: s.status, Header: s.header, Length: announced(s.header), Body: s, Trailer: s.trailer}
	switch {
	case s.method == "HEAD" || s.status == 304:
	case s.status == 204 || s.end && s.data.Len() == 0 && s.tail == nil:
		s.response.Length = 0
	}
	return &s.response
}

// trailer is what followed the body.
func (s *h2stream) trailer() httpmsg.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tail
}

// Here reports whether a read returns at once.
func (s *h2stream) Here() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.Len() > 0 || s.end || s.err != nil
}

// Wait waits until a read returns at once.
func (s *h2stream) Wait() {
	for !s.Here() && !s.closed.Load() {
		select {
		case <-s.came:
		case <-s.ctx.Done():
			return
		}
	}
}

// Read reads a piece of the body as it comes; its errors name the node.
func (s *h2stream) Read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		if s.data.Len() > 0 && !s.closed.Load() {
			n, _ := s.data.Read(p)
			more := s.consumed(n)
			s.mu.Unlock()
			if more > 0 {
				_ = s.conn.write(func() error { return s.conn.out.WriteWindowUpdate(s.id, more) }) // a failure ends the stream
			}
			return n, nil
		}
		err, end := s.err, s.end
		s.mu.Unlock()
		switch {
		case s.closed.Load():
			return 0, errBodyClosed
		case err != nil:
			return 0, failed(s.ctx, s.conn.addr, true, err)
		case end:
			return 0, io.EOF
		}
		select {
		case <-s.came:
		case <-s.ctx.Done():
			return 0, failed(s.ctx, s.conn.addr, true, s.ctx.Err())
		}
	}
}

var errBodyClosed = errors.New("read of a closed body")

// consumed notes that n bytes were read and returns how much room the node is
// to be told of, 0 for not now.
func (s *h2stream) consumed(n int) uint32 {
	if s.data.Len() == 0 && s.data.Cap() > streamWindow/4 {
		s.data = bytes.Buffer{} // a stream may last
	}
	s.read += n
	if s.end || s.err != nil || s.read < streamWindow/4 {
		return 0
	}
	more := s.read
	s.read = 0
	s.room += more
	return uint32(more)
}

// Close ends the exchange; the node is told unless it is complete.
func (s *h2stream) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.abandon()
	poke(s.came)
	return nil
}

// abandon takes the stream off its connection.
func (s *h2stream) abandon() {
	s.closed.Store(true)
	s.sender.stop()
	s.mu.Lock()
	end := s.end
	s.mu.Unlock()
	switch {
	case s.over.Load() || end && s.sentEnd.Load():
	case end:
		s.cancel(http2.ErrCodeNo) // the rest of the request is not needed
	default:
		s.cancel(http2.ErrCodeCancel)
	}
	s.conn.forget(s)
}
