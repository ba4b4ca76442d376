package transport

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/micro/sidecar/internal/httpmsg"
)

// send opens the stream with the head and what is here of the body; a sender
// takes care of the rest while the answer is awaited.
func (s *h2stream) send() error {
	r, w := s.request, s.sender
	if w == nil {
		return s.begin(nil)
	}
	waits := waits(r)
	var body []byte
	if WithHead(r) {
		body = make([]byte, r.Length)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			w.fail(err)
			return err
		}
		r.Body = bytes.NewReader(body) // to be sent again if need be
	}
	if err := s.begin(body); err != nil || s.sentEnd.Load() {
		return err
	}
	w.done = make(chan struct{})
	w.trailer = r.Trailer
	if body != nil {
		w.left -= int64(s.inline)
		_, _ = r.Body.Read(body[:s.inline]) // onto itself: it only moves on
	}
	if !waits {
		// The reading begins here and not some time later: the body's owner may
		// throw away what nobody reads when the answer comes.
		w.begun = true
		if _, ok := r.Body.(*io.PipeReader); !ok { // which waits even so
			_, _ = r.Body.Read(nil) // nothing is read, an error comes again
		}
	}
	go w.run(r.Body, waits)
	return nil
}

// h2sender streams a request's body to the node. A nil sender is one that has
// nothing to do.
type h2sender struct {
	stream  *h2stream
	left    int64 // of a body whose length was told
	trailer func() httpmsg.Header
	word    chan bool     // the node's word on "Expect: 100-continue"
	halt    chan struct{} // closed: the body is not wanted any more
	done    chan struct{} // closed when the body is no longer read; nil: it never was

	// kept is what was read of the body while that is not much, so that it can be
	// sent again; ended: and that is all of it.
	kept  []byte
	ended bool
	lost  bool // it was too much

	mu      sync.Mutex
	halted  bool
	begun   bool  // the body is being read
	refused bool  // it never will be
	err     error // of reading the body: the client's fault
}

func newH2sender(s *h2stream) *h2sender {
	if s.request.Length == 0 {
		return nil
	}
	return &h2sender{stream: s, left: s.request.Length, word: make(chan bool, 1), halt: make(chan struct{})}
}

// goAhead says that the node wants the body.
func (w *h2sender) goAhead() {
	if w != nil {
		w.tell(true)
	}
}

// refuse says that the node has answered without the body, or never will
// answer. It reports whether the body is untouched, and remains so.
func (w *h2sender) refuse() (untouched bool) {
	if w == nil {
		return true
	}
	w.mu.Lock()
	w.refused = true
	untouched = !w.begun
	w.mu.Unlock()
	w.tell(false)
	return untouched
}

func (w *h2sender) tell(wanted bool) {
	select {
	case w.word <- wanted:
	default:
	}
}

// stop ends the sending.
func (w *h2sender) stop() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.halted {
		w.halted = true
		close(w.halt)
	}
}

// end waits until the body is no longer read. It was stopped, and reading does
// not wait for anybody.
func (w *h2sender) end() {
	if w != nil && w.done != nil {
		<-w.done
	}
}

// all returns a body that was read completely and kept. One that is here is read
// in a moment, which is waited for.
func (w *h2sender) all() (body []byte, ok bool) {
	if w == nil || w.done == nil {
		return nil, false
	}
	moment := time.NewTimer(readMoment)
	defer moment.Stop()
	select {
	case <-w.done:
		return w.kept, w.ended
	case <-moment.C:
		return nil, false // somebody waits for the client
	}
}

// readMoment is how long a request that its node did not process waits for the rest
// of its body, with which it can be sent again.
const readMoment = 100 * time.Millisecond

// keep keeps a piece of the body.
func (w *h2sender) keep(p []byte, end bool) {
	if w.lost || len(w.kept)+len(p) > together {
		w.kept, w.lost = nil, true
		return
	}
	w.kept = append(w.kept, p...)
	w.ended = end
}

// fail notes that the client's body broke off.
func (w *h2sender) fail(err error) {
	w.mu.Lock()
	w.err = err
	w.mu.Unlock()
}

// problem is the error of reading the request's body, if any so far.
func (s *h2stream) problem() error {
	if s.sender == nil {
		return nil
	}
	s.sender.mu.Lock()
	defer s.sender.mu.Unlock()
	return s.sender.err
}

// errHalted ends a sender whose stream is over.
var errHalted = errors.New("the stream is over")

func (w *h2sender) run(body io.Reader, waits bool) {
	defer close(w.done)
	if waits && !w.wait() {
		return
	}
	buf := pieces.Get().(*[32 << 10]byte)
	defer pieces.Put(buf)
	known := w.left >= 0
	for {
		p := buf[:]
		if known {
			p = p[:min(w.left, int64(len(p)))]
		}
		n, err := body.Read(p)
		end := errors.Is(err, io.EOF)
		if known {
			w.left -= int64(n)
			if end && w.left > 0 {
				err = io.ErrUnexpectedEOF
			}
			end = w.left == 0
		}
		if err != nil && !end {
			w.broken(err)
			return
		}
		w.keep(buf[:n], end)
		if w.data(buf[:n], end && w.trailer == nil) != nil {
			return
		}
		if end {
			w.finish()
			return
		}
	}
}

// wait waits for the node's word and reports whether the body is to be sent;
// without a word it is sent after a while.
func (w *h2sender) wait() bool {
	patience := time.NewTimer(continueTimeout)
	defer patience.Stop()
	wanted := true
	select {
	case wanted = <-w.word:
	case <-w.halt:
		wanted = false
	case <-patience.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = wanted && !w.refused
	return w.begun
}

// broken ends the stream of a client that broke off: nobody is to take what
// came of it for a whole request.
func (w *h2sender) broken(err error) {
	w.fail(err)
	w.stream.broke(err)
	w.stream.cancel(http2.ErrCodeCancel)
}

// data sends a piece of the body as far as there is room, and waits for more.
func (w *h2sender) data(b []byte, end bool) error {
	s := w.stream
	for len(b) > 0 {
		n := s.conn.room(s, min(len(b), maxFrame))
		if n == 0 {
			select {
			case <-s.widened:
				continue
			case <-w.halt:
				return errHalted
			}
		}
		if err := s.write(b[:n], end && n == len(b)); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// finish ends the request, with trailer fields if there are any.
func (w *h2sender) finish() {
	s := w.stream
	if s.sentEnd.Load() {
		return
	}
	var h httpmsg.Header
	if w.trailer != nil {
		h = w.trailer()
	}
	s.trailers(h)
}
