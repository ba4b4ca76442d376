package discovery

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

// entry is a service in use, or one being asked for. Everything but service
// is guarded by Discovery.mu.
type entry struct {
	d       *Discovery
	name    string
	service atomic.Pointer[Service] // nil until the engine knew it
	unwatch context.CancelFunc      // set while a watch of its own runs

	running *read // under way
	next    *read // begins when running ends
	later   bool  // a read after a pause is due

	doubted time.Time // until then the engine's "not found" is not believed
}

// doubt notes that the engine may have lost what it knew; d.mu is held.
func (e *entry) doubt() { e.doubted = time.Now().Add(doubtTime) }

// note reads the service again after an event of its own watch. The zero event
// says that the watch begins, perhaps after the engine was away.
func (e *entry) note(ev registry.Event) {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.d.closed || e.d.entries[e.name] != e {
		return
	}
	if ev.Name == "" {
		e.doubt()
	}
	e.ask()
}

// read is one question to the engine, shared by all who asked before it began.
type read struct {
	done    chan struct{}
	service *Service
	err     error
}

// ask returns a read that has not begun yet; d.mu is held.
func (e *entry) ask() *read {
	if e.running == nil {
		e.running = &read{done: make(chan struct{})}
		e.d.tasks.Go(e.run)
		return e.running
	}
	if e.next == nil {
		e.next = &read{done: make(chan struct{})}
	}
	return e.next
}

// run carries out reads until none is asked for.
func (e *entry) run() {
	for e.once() {
	}
}

// once carries out the running read and reports whether another one follows.
func (e *entry) once() bool {
	d := e.d
	versions, err := e.get()

	d.mu.Lock()
	r := e.running
	r.err = err
	switch {
	case err == nil:
		e.doubted = time.Time{}
		r.service = snapshot(e.name, versions, e.service.Load())
		e.service.Store(r.service)
		d.publish(e)
	case errors.Is(err, registry.ErrNotFound) && e.service.Load() != nil && time.Now().Before(e.doubted):
		r.service, r.err = e.service.Load(), nil
		e.askLater()
	case errors.Is(err, registry.ErrNotFound):
		e.service.Store(nil)
		if e.next == nil {
			d.forget(e)
		}
	default: // the engine is away: stale beats empty
		d.noteAway()
		if e.service.Load() != nil {
			e.doubt()
			e.askLater()
		} else if e.next == nil {
			d.forget(e)
		}
	}
	e.running, e.next = e.next, nil
	more := e.running != nil
	d.mu.Unlock()
	close(r.done)
	return more
}

// get asks the engine, with at most maxReads questions under way.
func (e *entry) get() ([]registry.Service, error) {
	select {
	case e.d.reads <- struct{}{}:
		defer func() { <-e.d.reads }()
	case <-e.d.ctx.Done():
		return nil, e.d.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(e.d.ctx, readTimeout)
	defer cancel()
	versions, err := e.d.reg.Get(ctx, e.name)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return nil, &EngineError{err}
	}
	return versions, err
}

// EngineError says that the registry's engine could not be asked.
type EngineError struct{ Err error }

// Error is a sentence for people.
func (e *EngineError) Error() string { return "the registry cannot be asked: " + e.Err.Error() }

// Unwrap returns the engine's own error.
func (e *EngineError) Unwrap() error { return e.Err }

// askLater reads again after a pause, unless the Discovery ends before; d.mu
// is held.
func (e *entry) askLater() {
	if e.later {
		return
	}
	e.later = true
	d := e.d
	d.tasks.Go(func() {
		if sleep.For(d.ctx, jitter(retry)) != nil {
			return
		}
		d.mu.Lock()
		e.later = false
		d.mu.Unlock()
		d.changed(registry.Event{Name: e.name})
	})
}

// snapshot builds the picture of a service. Nodes that did not change are
// taken over from the old one with all that was measured about them.
func snapshot(name string, versions []registry.Service, old *Service) *Service {
	var nodes []*Node
	for _, v := range versions {
		for _, n := range v.Nodes {
			nodes = append(nodes, NewNode(n, v.Version))
		}
	}
	s := NewService(name, nodes)
	s.Versions = versions
	if old == nil {
		return s
	}
	s.Account, s.Meter = old.Account, old.Meter
	for i, n := range s.Nodes {
		at, ok := slices.BinarySearchFunc(old.Nodes, n.ID, func(o *Node, id string) int { return cmp.Compare(o.ID, id) })
		if ok && same(old.Nodes[at], n) {
			s.Nodes[i] = old.Nodes[at]
		}
	}
	s.Outliers.fit(s.Nodes, Now())
	return s
}

func same(a, b *Node) bool {
	return a.Peer == b.Peer && a.Version == b.Version && maps.Equal(a.Metadata, b.Metadata)
}
