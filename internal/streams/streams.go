// Package streams keeps account of answers that do not end by themselves, so
// that a sidecar that stops can end them in order. How an answer is ended is
// its owner's affair.
package streams

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrStopping is why a stream ends, or does not begin, when the sidecar stops.
var ErrStopping = errors.New("the sidecar is shutting down")

// Set is the streams under way. The zero value has none. It is safe for
// concurrent use.
type Set struct {
	mu      sync.Mutex
	stopped bool
	open    map[*context.CancelCauseFunc]bool
	idle    sync.WaitGroup // counts open; it grows only until stopped
}

// Begin opens a stream: its context ends with parent, or with [ErrStopping] as
// its cause when the set is stopped. done must be called at its end. A stopped
// set refuses with [ErrStopping].
func (s *Set) Begin(parent context.Context) (ctx context.Context, done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil, nil, ErrStopping
	}
	ctx, end := context.WithCancelCause(parent)
	if s.open == nil {
		s.open = map[*context.CancelCauseFunc]bool{}
	}
	s.open[&end] = true
	s.idle.Add(1)
	return ctx, func() {
		end(nil)
		s.mu.Lock()
		delete(s.open, &end)
		s.mu.Unlock()
		s.idle.Done()
	}, nil
}

// Stop takes no new streams, lets those under way end by themselves for as long
// as patience, ends the others, and waits for them until ctx ends.
func (s *Set) Stop(ctx context.Context, patience time.Duration) error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.idle.Wait(); close(done) }()
	if patience > 0 {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-done:
			return nil
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	s.mu.Lock()
	for end := range s.open {
		(*end)(ErrStopping)
	}
	s.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
