package api

import (
	"context"
	"net/http"
	"sync"

	"github.com/micro/sidecar/internal/httpmsg"
)

// streams are the answers that do not end by themselves. The zero value has
// none. It is safe for concurrent use.
type streams struct {
	mu      sync.Mutex
	stopped bool
	open    map[*stream]bool
	idle    sync.WaitGroup // counts open; it grows only until stopped
}

// stream is one of them: ctx ends with it, and tells why as its cause.
type stream struct {
	ctx context.Context
	end context.CancelCauseFunc
}

// errStopping is why a stream ends when the sidecar stops.
func errStopping() error {
	return httpmsg.Errorf(http.StatusServiceUnavailable, "the sidecar is shutting down")
}

// begin opens a stream, which is over when parent ends, or refuses to.
func (s *streams) begin(parent context.Context) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, errStopping()
	}
	one := &stream{}
	one.ctx, one.end = context.WithCancelCause(parent)
	if s.open == nil {
		s.open = map[*stream]bool{}
	}
	s.open[one] = true
	s.idle.Add(1)
	return one, nil
}

// done closes a stream.
func (s *streams) done(one *stream) {
	one.end(nil)
	s.mu.Lock()
	delete(s.open, one)
	s.mu.Unlock()
	s.idle.Done()
}

// stop ends all streams, takes no new ones and waits until ctx ends for those
// that were open.
func (s *streams) stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopped = true
	for one := range s.open {
		one.end(errStopping())
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.idle.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
