package proxy

import (
	"io"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// patience is the wait for a node's answer. It begins when the request has
// been read to its end: a long upload is no slow node.
type patience struct {
	timeout time.Duration
	expire  func()

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

// watch returns the body of r; the wait begins when it ends, or now when there
// is none.
func (p *patience) watch(r *httpmsg.Request) io.Reader {
	if r.Length == 0 {
		p.begin()
		return r.Body
	}
	return &watchedBody{r.Body, p}
}

func (p *patience) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer == nil && !p.stopped && p.timeout > 0 {
		p.timer = time.AfterFunc(p.timeout, p.expire)
	}
}

// stop ends the wait; calling it again does nothing.
func (p *patience) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

type watchedBody struct {
	io.Reader
	p *patience
}

func (b *watchedBody) Read(buf []byte) (int, error) {
	n, err := b.Reader.Read(buf)
	if err != nil {
		b.p.begin()
	}
	return n, err
}
