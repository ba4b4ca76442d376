// Package monitor tells what the sidecar does and how it fares: the overview
// that /stats answers and its page shows, and the metrics for Prometheus. It
// reads what others count and know, at the moment somebody asks; it counts
// nothing itself, and knows no HTTP path.
package monitor

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/stats"
)

// Monitor reads its sources. They are set before first use and not changed;
// where a function is nil, there is nothing to tell. It is safe for concurrent
// use.
type Monitor struct {
	// Version is that of the program.
	Version string
	Stats   *stats.Stats
	Topics  *stats.Topics
	// Sampler keeps the last hour for the page; nil without --enable_stats.
	Sampler *stats.Sampler
	// Services yields the services in use.
	Services     func() iter.Seq[*discovery.Service]
	Engines      func() []Engine
	Applications func() []Application
	Messages     func() Messages
	// LogDropped is how many lines the access log has dropped.
	LogDropped func() uint64

	mu     sync.Mutex
	looked chan struct{} // closed at the next look
}

// The states of a node, as balancing sees it.
const (
	Serving = "serving"
	Failing = "failing" // it could not be reached lately; others are preferred
	Ejected = "ejected" // it is left out until a time
	Probing = "probing" // one request finds out whether it is well again
)

// State is what balancing thinks of a node.
type State struct {
	Name string `json:"state"`
	// Until is when an ejection ends.
	Until time.Time `json:"until,omitzero"`
	// Reason says why it is not serving.
	Reason string `json:"reason,omitempty"`
}

// Engine is a registry or a broker.
type Engine struct {
	Kind string    `json:"kind"` // registry or broker
	Name string    `json:"name"`
	Up   bool      `json:"up"`
	Err  string    `json:"error,omitempty"` // why it is not up
	At   time.Time `json:"checked,omitzero"`
}

// Application is one that the sidecar registers.
type Application struct {
	Name    string `json:"name"`
	Node    string `json:"node,omitempty"`
	Address string `json:"address,omitempty"`
	// Checked: it has a health check, and Healthy says what that has found.
	Checked    bool    `json:"checked"`
	Healthy    bool    `json:"healthy"`
	Registered bool    `json:"registered"`
	Probes     []Probe `json:"probes,omitempty"` // the last ones, oldest first
}

// Probe is one look at an application.
type Probe struct {
	At     time.Time `json:"at"`
	Took   float64   `json:"took_ms"`
	Status int       `json:"status,omitempty"` // of the answer, if there was one
	Err    string    `json:"error,omitempty"`  // "" when it passed
}

// Messages is what messaging has done since the start.
type Messages struct {
	Subscribers int   `json:"subscribers"`
	Published   int64 `json:"published"`
	Delivered   int64 `json:"delivered"`
	Cut         int64 `json:"cut"`  // subscribers that were too slow
	Dead        int64 `json:"dead"` // messages that became dead letters
}

// Run keeps the last hour up to date until ctx ends. It returns at once when
// there is no sampler.
func (m *Monitor) Run(ctx context.Context) {
	if m.Sampler == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		// On the second, so that each step of the history is of one length.
		now := m.Stats.Now().Round(0)
		next := now.Truncate(time.Second).Add(time.Second)
		timer.Reset(next.Sub(now))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		m.Stats.File()
		if next.Truncate(stats.Tick).Equal(next) {
			m.look()
		}
	}
}

func (m *Monitor) look() {
	now := m.Stats.Now()
	m.Sampler.Look(now, m.meters)
	m.Topics.Look(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.looked != nil {
		close(m.looked)
		m.looked = nil
	}
}

// Looked returns a channel that is closed when there is something new to tell.
func (m *Monitor) Looked() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.looked == nil {
		m.looked = make(chan struct{})
	}
	return m.looked
}

// meters yields the meters there are, and whether they are a service's.
func (m *Monitor) meters(yield func(*stats.Meter, bool) bool) {
	for s := range m.Services() {
		if !yield(s.Meter, true) {
			return
		}
		for _, n := range s.Nodes {
			if !yield(&n.Meter, false) {
				return
			}
		}
	}
}

// state is what balancing thinks of a node.
func state(n *discovery.Node) State {
	switch at := n.State(); {
	case at.Ejected && at.Left > 0:
		return State{Name: Ejected, Until: time.Now().Add(at.Left), Reason: "it failed too often in a row"}
	case at.Ejected:
		return State{Name: Probing, Reason: "the next request finds out whether it is well"}
	case at.Failures > 0:
		return State{Name: Failing, Reason: fmt.Sprintf("failures in a row: %d", at.Failures)}
	case n.Load.Failed.Load() != 0:
		return State{Name: Failing, Reason: "it could not be reached"}
	}
	return State{Name: Serving}
}

// list calls f unless it is nil.
func list[T any](f func() []T) []T {
	if f == nil {
		return nil
	}
	return f()
}
