package server

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/tunnel"
)

// strict is the reading side of a connection that net/http serves over HTTP/1.
// net/http is more lenient than http1 (folded fields, bare LF, a length beside
// a transfer coding), and forgets the order and spelling of names. So http1
// reads first: net/http gets the heads that pass as they came, and chunked
// bodies framed anew; what it forgets is kept for the handlers.
type strict struct {
	src    *tunnel.Conn
	in     *http1.Reader
	refuse func(error) // answers a head that does not pass, and waits a moment

	out      []byte // what net/http has yet to read
	offered  bool   // the last request offered to switch protocols
	ahead    int    // bytes of the next head that net/http has read already: 0 or 1
	inBody   bool
	body     http1.Body
	now      *passed     // the request whose body it is
	piece    []byte      // of a chunked body; made when there is one
	err      error       // nothing follows it
	switched atomic.Bool // see raw

	mu       sync.Mutex
	heads    []*passed    // passed on, and not taken by a handler
	nonsense *http1.Error // what is wrong with the last body
}

// passed is a request that was passed on to net/http.
type passed struct {
	http1.Request
	shown   string         // the target that net/http was given
	trailer httpmsg.Header // there when the body has ended
}

// errRefused passes for a client that takes too long: net/http then closes the
// connection without a word.
var errRefused error = os.ErrDeadlineExceeded

func newStrict(src *tunnel.Conn, refuse func(error)) *strict {
	s := &strict{src: src, refuse: refuse}
	s.in = http1.NewReader(src)
	return s
}

// Read is net/http's, and that of the tunnel that the connection may become.
// There is one at a time.
func (s *strict) Read(p []byte) (int, error) {
	if s.switched.Load() {
		return s.rest(p)
	}
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(s.out) > 0:
			n := copy(p, s.out)
			s.out = s.out[n:]
			return n, nil
		case s.err != nil:
			return 0, s.err
		case s.inBody:
			if n, err := s.readBody(p); n > 0 || err != nil {
				return n, err
			}
		case len(p) == 1 && s.ahead == 0:
			return s.peek(p)
		default:
			if err := s.head(); err != nil {
				return 0, err
			}
		}
	}
}

// peek gives net/http the first byte of what follows a request: it reads a
// single one while a handler runs, to see whether the client is still there.
// Nothing is known then about what it belongs to, a request or what an upgrade
// leads to.
func (s *strict) peek(p []byte) (int, error) {
	pass := s.in.Wait
	if !s.offered {
		pass = s.in.PassEmpty // in front of a request (RFC 9112 section 2.2)
	}
	// Too many empty lines are the next request's failure, not this one's.
	if err, nonsense := pass(), (*http1.Error)(nil); err != nil && !errors.As(err, &nonsense) {
		return 0, err
	}
	p[0], s.ahead = s.in.Buffered()[0], 1
	return 1, nil
}

func isLineEnd(c byte) bool { return c == '\r' || c == '\n' }

// head passes the next head on.
func (s *strict) head() error {
	one := &passed{}
	text, err := s.next(one)
	if err == nil {
		one.shown, err = showable(&one.Request)
	}
	if nonsense := (*http1.Error)(nil); errors.As(err, &nonsense) || errors.Is(err, http1.ErrHeadTooLarge) {
		s.refuse(err)
		s.err = errRefused
		return s.err
	}
	if err != nil {
		return err
	}
	if one.shown != one.Target {
		text = text[:len(one.Method)+1] + one.shown + text[len(one.Method)+1+len(one.Target):]
	}
	if one.Header.Has("Expect") {
		text = withoutDemands(text)
	}
	s.out, s.ahead, s.offered = []byte(text)[s.ahead:], 0, one.Upgrade != ""
	s.mu.Lock()
	s.heads = append(s.heads, one)
	s.mu.Unlock()
	if one.Length != 0 {
		s.inBody, s.now = true, one
		s.body.Reset(s.in, one.Length)
	}
	return nil
}

// showable returns the target that net/http can be given for a request: its own,
// or "/" for a path that is none to net/http, as it is none of the sidecar's own.
// What has no form at all (RFC 9112 section 3.2) is refused here, since net/http
// would not do it in JSON.
func showable(r *http1.Request) (string, error) {
	_, err := url.ParseRequestURI(r.Target)
	switch {
	case err == nil, r.Method == http.MethodConnect:
		return r.Target, nil
	case r.Target[0] == '/':
		return "/", nil
	}
	return "", &http1.Error{Reason: "malformed request target"}
}

// withoutDemands leaves out what a head expects but "100-continue". Nobody is
// bound to know other demands (RFC 9110 section 10.1.1), and the fast path and
// HTTP/2 pass them on; net/http would refuse the request, without JSON.
func withoutDemands(head string) string {
	lines := slices.DeleteFunc(strings.SplitAfter(head, "\r\n"), func(line string) bool {
		name, value, _ := strings.Cut(line, ":")
		return strings.EqualFold(name, "Expect") && !strings.EqualFold(strings.TrimSpace(value), "100-continue")
	})
	return strings.Join(lines, "")
}

// next reads a head.
func (s *strict) next(one *passed) (text string, err error) {
	if s.ahead > 0 && isLineEnd(s.in.Buffered()[0]) {
		return "", &http1.Error{Reason: "an empty line where a message was expected"}
	}
	if err = s.in.Wait(); err == nil && !s.in.Complete() {
		// To net/http, which sees whole heads alone, one that does not come to its
		// end is a connection that is idle. It sets the next deadline itself.
		err = s.src.SetReadDeadline(time.Now().Add(headTimeout))
	}
	if err == nil {
		text, err = s.in.ReadHead()
	}
	if err == nil {
		err = http1.ParseRequest(text, &one.Request)
	}
	return text, err
}

// readBody passes a piece of a body on. One whose length is known goes as it
// is, a chunked one by way of out.
func (s *strict) readBody(p []byte) (n int, err error) {
	chunked := s.now.Length == http1.Chunked
	if chunked {
		if s.piece == nil {
			s.piece = make([]byte, together)
		}
		p = s.piece
	}
	n, err = s.body.Read(p)
	ended := s.body.Ended()
	if ended {
		s.inBody, err = false, nil
		s.mu.Lock()
		s.now.trailer = s.body.Trailer()
		s.mu.Unlock()
	}
	if !chunked {
		return n, err
	}
	s.out = s.out[:0]
	if n > 0 {
		s.out = append(append(http1.AppendChunkSize(s.out, n), p[:n]...), "\r\n"...)
	}
	if ended {
		s.out = http1.AppendLastChunk(s.out, s.body.Trailer())
	}
	if nonsense := (*http1.Error)(nil); errors.As(err, &nonsense) {
		// An error would be a client that has gone to net/http, which ends the
		// request then: it gets a body that is malformed to it, too.
		s.out = append(s.out, "malformed\r\n"...)
		s.inBody, s.err, err = false, errRefused, nil
		s.mu.Lock()
		s.nonsense = nonsense
		s.mu.Unlock()
	}
	return 0, err
}

// problem is what is wrong with a body that was read, if anything is.
func (s *strict) problem() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nonsense == nil {
		return nil
	}
	return s.nonsense
}

// raw ends the reading of requests: what follows is the business of whoever
// switched protocols.
func (s *strict) raw() { s.switched.Store(true) }

// rest reads what was not passed on, and then past the codec.
func (s *strict) rest(p []byte) (int, error) {
	switch {
	case len(s.out) > 0:
		n := copy(p, s.out)
		s.out = s.out[n:]
		return n, nil
	case s.in == nil:
		return s.src.Read(p)
	case s.ahead > 0: // net/http has it, and gives it with the connection
		var one [1]byte
		s.ahead = 0
		if _, err := s.in.Read(one[:]); err != nil {
			return 0, err
		}
	}
	if len(s.in.Buffered()) > 0 {
		return s.in.Read(p)
	}
	s.in, s.out, s.piece = nil, nil, nil // a tunnel may last: it needs none
	return s.src.Read(p)
}

// left is how much rest can read without the client.
func (s *strict) left() int {
	n := len(s.out) + s.src.Buffered()
	if s.in != nil {
		n += len(s.in.Buffered()) - s.ahead
	}
	return n
}

// take returns what was passed on of a request that net/http has made of it,
// nil when there is nothing.
func (s *strict) take(method, target string) *passed {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.heads) > 0 {
		one := s.heads[0]
		s.heads = s.heads[1:]
		if one.Method == method && one.shown == target {
			return one
		}
	}
	return nil
}

// trailerOf returns the trailer of a request whose body has ended.
func (s *strict) trailerOf(one *passed) httpmsg.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return one.trailer
}
