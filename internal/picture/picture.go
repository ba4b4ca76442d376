// Package picture holds what a driver knows of all services, for engines that
// tell of themselves (a file, a network, a stream of changes) instead of being
// asked. It owns the reading side of [registry.Registry], answered from memory
// and never from the engine, and its watches. Filling it is the driver's part.
package picture

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"github.com/micro/sidecar/registry"
)

// Picture is what is known of all services. Until the first
// [Picture.Replace] it is not known at all, which is not the same as empty.
// All methods are safe for concurrent use; services that were handed over, or
// handed out, are changed by nobody.
type Picture struct {
	mu       sync.Mutex
	services map[string][]registry.Service
	names    []string // sorted; nil when it has to be made again
	known    bool
	begun    chan struct{} // closed when known, and replaced when err changes before
	err      error         // why it is not known
	watchers map[*watcher]struct{}
}

// New returns a picture that is not known yet.
func New() *Picture {
	return &Picture{
		services: map[string][]registry.Service{},
		begun:    make(chan struct{}),
		watchers: map[*watcher]struct{}{},
	}
}

// Fail says why the picture is not known yet: who asks gets this error. Once
// it is known, the last good picture stays and Fail does nothing.
func (p *Picture) Fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		return
	}
	p.err = err
	close(p.begun)
	p.begun = make(chan struct{})
}

// Replace makes all the picture, in place of what it was. Watchers are told of
// what is different. The services must be sorted as by [registry.Sort].
func (p *Picture) Replace(all map[string][]registry.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.services {
		if _, stays := all[name]; !stays {
			p.set(name, nil)
		}
	}
	for name, services := range all {
		p.set(name, services)
	}
	if !p.known {
		p.known, p.err = true, nil
		close(p.begun)
		for w := range p.watchers {
			w.wake()
		}
	}
}

// Set replaces one service; without versions it is gone. It changes nothing
// before the first Replace.
func (p *Picture) Set(name string, services []registry.Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known {
		p.set(name, services)
	}
}

// set replaces one service and tells the watchers if it differs. p.mu is held.
func (p *Picture) set(name string, services []registry.Service) {
	before, there := p.services[name]
	switch {
	case len(services) == 0 && !there, there && reflect.DeepEqual(before, services):
		return
	case len(services) == 0:
		delete(p.services, name)
		p.names = nil
	default:
		p.services[name] = services
		if !there {
			p.names = nil
		}
	}
	for w := range p.watchers {
		w.note(name)
	}
}

// Names returns the names of all services, sorted.
func (p *Picture) Names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sorted()
}

// sorted returns a copy of the names; p.mu is held.
func (p *Picture) sorted() []string {
	if p.names == nil {
		p.names = slices.AppendSeq([]string{}, maps.Keys(p.services))
		slices.Sort(p.names)
	}
	return slices.Clone(p.names)
}

// Get implements [registry.Registry]. It waits for the picture to be known,
// or for the first reason why it is not.
func (p *Picture) Get(ctx context.Context, name string) ([]registry.Service, error) {
	if err := p.await(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	services, there := p.services[name]
	if !there {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return slices.Clone(services), nil
}

// List implements [registry.Registry]. It waits as Get does.
func (p *Picture) List(ctx context.Context) ([]string, error) {
	if err := p.await(ctx); err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return p.Names(), nil
}

// await waits until the picture is known, or returns why it is not.
func (p *Picture) await(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		p.mu.Lock()
		known, begun, err := p.known, p.begun, p.err
		p.mu.Unlock()
		if known || err != nil {
			return err
		}
		select {
		case <-begun:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
