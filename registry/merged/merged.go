// Package merged makes one registry of several: it reads from all and writes
// to the first that can be written. It owns how their answers become one, and
// that one which fails hides none of the others. It opens no engine.
package merged

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

const (
	// patience is how long an answer of one registry is waited for, and
	// impatience the same when it did not come the last time: the others have
	// theirs long since.
	patience   = 2 * time.Second
	impatience = 250 * time.Millisecond
	// Pauses before a watch is begun again double from the first to the last.
	firstPause = 500 * time.Millisecond
	lastPause  = 10 * time.Second
)

// Member is one of the registries.
type Member struct {
	Name     string // for messages
	Registry registry.Registry
}

// Registry is several registries in one. It is safe for concurrent use.
type Registry struct {
	members []*member
	log     *slog.Logger
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ registry.Pinger   = (*Registry)(nil)
	_ io.Closer         = (*Registry)(nil)
)

// New merges the members. Of a node that several know under one id, the first
// one's word counts.
func New(log *slog.Logger, members ...Member) *Registry {
	r := &Registry{log: log}
	for _, m := range members {
		r.members = append(r.members, &member{Member: m, log: log, services: map[string][]registry.Service{}})
	}
	return r
}

// Close closes the members that can be closed.
func (r *Registry) Close() error {
	var errs []error
	for _, m := range r.members {
		if c, ok := m.Registry.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// Ping reports whether at least one member can be reached: calls go on with
// what it knows. That another is away is in the log.
func (r *Registry) Ping(ctx context.Context) error {
	answers := make(chan error, len(r.members))
	for _, m := range r.members {
		go func() { answers <- m.ping(ctx) }()
	}
	var errs []error
	for range r.members {
		err := <-answers
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Register registers with the first member that can be written. When that one
// is away it is an error: a registration does not move from engine to engine.
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	return r.write(func(w registry.Registry) error { return w.Register(ctx, s, ttl) })
}

// Deregister is for what Register registered.
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	return r.write(func(w registry.Registry) error { return w.Deregister(ctx, s) })
}

func (r *Registry) write(do func(registry.Registry) error) error {
	err := error(registry.ErrReadOnly)
	for _, m := range r.members {
		if err = do(m.Registry); !errors.Is(err, registry.ErrReadOnly) {
			break
		}
	}
	return err
}

// Get asks all members. For one that fails its last answer counts. Unknown is
// what all have answered to be unknown.
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	answers := ask(r.members, func(m *member) ([]registry.Service, error) { return m.get(ctx, name) })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all [][]registry.Service
	var failed []error
	for _, a := range answers {
		switch {
		case len(a.value) > 0:
			all = append(all, a.value)
		case a.err != nil && !errors.Is(a.err, registry.ErrNotFound):
			failed = append(failed, a.err)
		}
	}
	if len(all) > 0 {
		return union(name, all), nil
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
}

// List is what any member knows. It fails when all have failed.
func (r *Registry) List(ctx context.Context) ([]string, error) {
	answers := ask(r.members, func(m *member) ([]string, error) { return m.list(ctx) })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	var failed []error
	for _, a := range answers {
		if a.err != nil {
			failed = append(failed, a.err)
		}
		for _, name := range a.value {
			names[name] = true
		}
	}
	if len(failed) == len(r.members) {
		return nil, errors.Join(failed...)
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// Watch watches all members. One that breaks is watched again, and the others
// go on. It is live when the first is. What a member says of a service is not
// all of it, so events only say which one to read again.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var one sync.Mutex
	var watches sync.WaitGroup
	for _, m := range r.members {
		watches.Go(func() {
			m.watch(ctx, func(e registry.Event) {
				one.Lock()
				defer one.Unlock()
				if ctx.Err() == nil {
					changed(registry.Event{Name: e.Name})
				}
			})
		})
	}
	watches.Wait()
	return ctx.Err()
}

// answer is what one member said.
type answer[T any] struct {
	value T
	err   error
}

// ask asks all members at once, and returns the answers in their order.
func ask[T any](members []*member, f func(*member) (T, error)) []answer[T] {
	answers := make([]answer[T], len(members))
	var asking sync.WaitGroup
	for i, m := range members {
		asking.Go(func() { answers[i].value, answers[i].err = f(m) })
	}
	asking.Wait()
	return answers
}

// union makes one service of several answers, one a version. Who comes first
// has the word about a node, and about a version's metadata and endpoints.
func union(name string, answers [][]registry.Service) []registry.Service {
	var versions []registry.Service
	seen := map[string]bool{}
	for _, services := range answers {
		for _, s := range services {
			var nodes []registry.Node
			for _, n := range s.Nodes {
				if !seen[n.ID] {
					nodes = append(nodes, n)
				}
			}
			if len(nodes) == 0 {
				continue
			}
			i := slices.IndexFunc(versions, func(v registry.Service) bool { return v.Version == s.Version })
			if i < 0 {
				s.Nodes = nil
				versions = append(versions, s)
				i = len(versions) - 1
			}
			versions[i].Nodes = append(versions[i].Nodes, nodes...)
		}
		for _, s := range services { // one answer may not say a node twice
			for _, n := range s.Nodes {
				seen[n.ID] = true
			}
		}
	}
	if len(versions) == 0 { // known, and without a node
		return []registry.Service{{Name: name, Version: answers[0][0].Version, Metadata: answers[0][0].Metadata, Endpoints: answers[0][0].Endpoints}}
	}
	registry.Sort(versions)
	return versions
}
