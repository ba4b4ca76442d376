package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// patience is the wait for a node to begin its answer. It stands still while
// the request's body is waited for, which is the client's time, and begins
// anew with each piece of it that the node is offered: a long upload is no slow
// node, one that takes nothing more is.
type patience struct {
	timeout time.Duration // 0 means for ever
	expire  func()

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	broken  error // what ended the request's body, if not its end
}

// watch begins the wait and returns the body of r to be read through it.
func (p *patience) watch(r *httpmsg.Request) io.Reader {
	p.begin()
	return &watchedBody{r.Body, p}
}

// errTimeout ends a request whose node did not go on in time.
var errTimeout = &timeoutError{}

type timeoutError struct{}

func (*timeoutError) Error() string   { return "the node did not answer in time" }
func (*timeoutError) Is(e error) bool { return e == context.DeadlineExceeded }

func (p *patience) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stopped || p.timeout <= 0:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.timeout, p.expire)
	default:
		p.timer.Reset(p.timeout)
	}
}

func (p *patience) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
}

// stop ends the wait for good; calling it again does nothing.
func (p *patience) stop() {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.pause()
}

// fail notes that the request's body broke off.
func (p *patience) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = err
}

// failure returns what the request's body broke off with, or nil.
func (p *patience) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

// watchedBody is a request's body as the node's side reads it.
type watchedBody struct {
	r io.Reader
	p *patience
}

func (b *watchedBody) Read(buf []byte) (int, error) {
	b.p.pause()
	n, err := b.r.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		b.p.fail(err)
	}
	b.p.begin()
	return n, err
}
