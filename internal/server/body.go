package server

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// swallowLimit is how much of a body that nobody wanted is read ahead of
	// the answer, to keep the connection.
	swallowLimit = 64 << 10
	// drainLimit and drainTime bound what is read after the answer, before the
	// connection is closed.
	drainLimit = 64 << 20
	drainTime  = time.Second
)

// body is a request's body. Reads come from whoever sends it on, also while
// the answer is under way, but none after finish. nil is a body that was read.
type body struct {
	r       io.ReadCloser
	control *http.ResponseController
	length  int64 // -1 when it is not known
	http2   bool  // it is a stream's, the connection is not concerned
	awaited bool  // the client waits for "100 Continue"
	strict  *strict

	// proceed, when set, tells the client to go on, before the first read.
	proceed func()

	begun, ended atomic.Bool

	mu     sync.Mutex // held while reading
	closed bool
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// errFinished is what a read gets after the request was answered.
var errFinished = errors.New("the request has been answered")

// awaited reports whether net/http takes the client to be waiting for "100
// Continue" (RFC 9110 section 10.1.1).
func awaited(r *http.Request) bool {
	return r.ProtoAtLeast(1, 1) && strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// Read reads from the client.
func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errFinished
	}
	if !b.begun.Swap(true) && b.proceed != nil {
		b.proceed()
	}
	if len(p) == 0 {
		return 0, nil // net/http would wait for the next chunk
	}
	return b.read(p)
}

func (b *body) read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	} else if err != nil && b.strict != nil {
		if what := b.strict.problem(); what != nil {
			err = what
		}
	}
	return n, err
}

// Close does nothing: the rest is the entrance's affair.
func (b *body) Close() error { return nil }

// readable reports whether the next request can be read from the connection:
// the body was read, or nobody began to and it is small.
func (b *body) readable() bool {
	if b == nil || b.http2 || b.ended.Load() {
		return true
	}
	if b.awaited || b.length < 0 || b.length > swallowLimit || b.begun.Swap(true) {
		return false
	}
	return b.discard(swallowLimit)
}

// discard reads the rest of the body, up to limit, and reports whether it got
// to the end.
func (b *body) discard(limit int64) bool {
	if b.control.SetReadDeadline(time.Now().Add(drainTime)) != nil {
		return false
	}
	b.mu.Lock() // a read under way ends at the deadline
	defer b.mu.Unlock()
	_, _ = io.CopyN(io.Discard, reader(b.read), limit) // its end is noted in ended
	if !b.ended.Load() {
		return false
	}
	return b.control.SetReadDeadline(time.Time{}) == nil
}

// finish ends all reading. What is left of the body is read for a while, since
// a client that is still sending when the connection closes would lose the
// answer (RFC 9112 section 9.6); net/http closes the connection then. Of
// HTTP/2 nothing is read: net/http asks the client to stop (RFC 9113 section
// 8.1).
func (b *body) finish() {
	if !b.http2 && b.control.Flush() == nil {
		b.discard(drainLimit)
	}
	if !b.ended.Load() {
		_ = b.control.SetReadDeadline(past) // net/http is not to read on
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

// reader makes an io.Reader of a method.
type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
