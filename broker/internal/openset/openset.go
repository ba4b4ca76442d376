// Package openset keeps what a broker has to end when it is closed:
// subscriptions and members. It owns none of them.
package openset

import (
	"sync"

	"github.com/micro/sidecar/broker"
)

// Ender is a subscription or a member.
type Ender interface {
	// End is its Close for a broker that is closed. Twice is no error.
	End()
}

// Set is safe for concurrent use. The zero value is empty and open.
type Set struct {
	mu     sync.Mutex
	all    map[Ender]struct{}
	closed bool
}

// Add remembers one, or returns [broker.ErrClosed].
func (s *Set) Add(e Ender) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return broker.ErrClosed
	}
	if s.all == nil {
		s.all = map[Ender]struct{}{}
	}
	s.all[e] = struct{}{}
	return nil
}

// Drop forgets one.
func (s *Set) Drop(e Ender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, e)
}

// Closed tells that Close was called.
func (s *Set) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close lets nothing more in and returns what is to be ended; first is false
// when it was called before.
func (s *Set) Close() (all []Ender, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	for e := range s.all {
		all = append(all, e)
	}
	s.all, s.closed = nil, true
	return all, true
}
