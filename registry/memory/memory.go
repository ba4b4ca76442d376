// Package memory is a registry inside the process, for tests: it expires,
// watches and fails as an engine does. It owns nothing outside the process
// and shares nothing with another Registry.
package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

// Registry holds registrations in memory. It is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	services map[string]map[string]*entry // by service name and node id
	watchers map[*watcher]struct{}
	broken   error
	order    uint64 // of the last registration
}

// entry is one registered node and what was said about its version with it.
type entry struct {
	service  registry.Service // with this one node
	deadline time.Time        // zero: stays until removed
	expiry   *time.Timer      // nil when deadline is zero
	order    uint64
}

// New returns an empty registry.
func New() *Registry {
	return &Registry{
		services: make(map[string]map[string]*entry),
		watchers: make(map[*watcher]struct{}),
	}
}

// Break makes every method fail with err and ends every watch with it, as if
// the engine had gone away. What is registered is kept and expires meanwhile.
// nil repairs it.
func (r *Registry) Break(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken = err
	if err != nil {
		for w := range r.watchers {
			w.err = err
			w.wake()
		}
	}
}

// Register implements [registry.Registry].
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if s.Name == "" {
		return errors.New("register: the service has no name")
	}
	for _, n := range s.Nodes {
		if n.ID == "" {
			return fmt.Errorf("register %s: a node has no id", s.Name)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	for _, n := range s.Nodes {
		r.put(s, n, ttl)
	}
	r.notify(s.Name)
	return nil
}

// put adds or replaces one node. r.mu is held.
func (r *Registry) put(s registry.Service, n registry.Node, ttl time.Duration) {
	r.remove(s.Name, n.ID)
	nodes := r.services[s.Name]
	if nodes == nil {
		nodes = make(map[string]*entry)
		r.services[s.Name] = nodes
	}
	r.order++
	e := &entry{service: clone(s, n), order: r.order}
	if ttl > 0 {
		e.deadline = time.Now().Add(ttl)
		e.expiry = time.AfterFunc(ttl, func() { r.expire(s.Name, n.ID, e) })
	}
	nodes[n.ID] = e
}

func (r *Registry) expire(name, id string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.services[name][id] == e { // not renewed while the timer fired
		r.remove(name, id)
		r.notify(name)
	}
}

// remove takes one node out and reports whether it was there. r.mu is held.
func (r *Registry) remove(name, id string) bool {
	e, there := r.services[name][id]
	if !there {
		return false
	}
	if e.expiry != nil {
		e.expiry.Stop()
	}
	delete(r.services[name], id)
	if len(r.services[name]) == 0 {
		delete(r.services, name)
	}
	return true
}

// Deregister implements [registry.Registry].
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	changed := false
	for _, n := range s.Nodes {
		changed = r.remove(s.Name, n.ID) || changed
	}
	if changed {
		r.notify(s.Name)
	}
	return nil
}

// Get implements [registry.Registry].
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	services := r.get(name)
	if len(services) == 0 {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return services, nil
}

// get returns the versions of a service, an empty slice when there is none.
// What was registered last speaks for its version. r.mu is held.
func (r *Registry) get(name string) []registry.Service {
	entries := slices.SortedFunc(maps.Values(r.services[name]), func(a, b *entry) int {
		return int(int64(b.order - a.order))
	})
	now := time.Now()
	services := []registry.Service{}
	for _, e := range entries {
		if !e.deadline.IsZero() && !now.Before(e.deadline) {
			continue
		}
		s := clone(e.service, e.service.Nodes[0])
		i := slices.IndexFunc(services, func(have registry.Service) bool { return have.Version == s.Version })
		if i < 0 {
			services = append(services, s)
		} else {
			services[i].Nodes = append(services[i].Nodes, s.Nodes[0])
		}
	}
	registry.Sort(services)
	return services
}

// List implements [registry.Registry].
func (r *Registry) List(ctx context.Context) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usable(ctx); err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return slices.Sorted(maps.Keys(r.services)), nil
}

// Ping implements [registry.Pinger].
func (r *Registry) Ping(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.usable(ctx)
}

// usable says why nothing can be done now. r.mu is held.
func (r *Registry) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.broken
}

// clone copies s with n as its only node, so that neither the caller's later
// changes reach the registry nor the other way round. What endpoints point to
// is shared: nobody changes a Value.
func clone(s registry.Service, n registry.Node) registry.Service {
	n.Metadata = maps.Clone(n.Metadata)
	s.Nodes = []registry.Node{n}
	s.Metadata = maps.Clone(s.Metadata)
	s.Endpoints = slices.Clone(s.Endpoints)
	return s
}
