package health

import (
	"sync"
	"sync/atomic"
)

// State tells whether an application is healthy to those that act on it. The
// zero value is one that is not. Its methods are safe for concurrent use, and
// Healthy costs one atomic load.
type State struct {
	healthy atomic.Bool
	mu      sync.Mutex
	changed chan struct{} // closed at the next change; made when asked for
}

// Healthy reports whether the application is healthy now.
func (s *State) Healthy() bool { return s.healthy.Load() }

// Changed returns a channel that is closed at the next change. Ask for it
// first and look at Healthy then: no change is missed.
func (s *State) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

// Set says how the application is.
func (s *State) Set(healthy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.healthy.Swap(healthy) != healthy && s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}
