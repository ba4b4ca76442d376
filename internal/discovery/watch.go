package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

// The actions of a [Change].
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
)

// Change is one change of the registry, in the form in which `/registry`
// streams it. Service holds the nodes of all versions, as they are now; with
// Delete, as they were last.
type Change struct {
	Action  string
	Service registry.Service
}

// Watch reports the changes of the service name, or with "" of all services,
// each once and per service in order, until ctx ends or emit fails, whose
// error it returns. live is called once changes from then on will be seen.
// When the engine goes away the watch waits for it and then reports what is
// different.
func (d *Discovery) Watch(ctx context.Context, name string, live func(), emit func(Change) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()

	w := &watcher{reg: d.reg, only: name, wake: make(chan struct{}, 1), dirty: map[string]bool{}, seen: map[string]state{}}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	tasks.Go(func() { d.hints(ctx, name, w.note) })

	first := true
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		if err := w.round(ctx, first, emit); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var e *emitError
			if errors.As(err, &e) {
				return e.err
			}
			select { // the engine is away: what is dirty stays so
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(jitter(retry)):
				w.note(registry.Event{Name: name})
			}
			continue
		}
		if first {
			first = false
			live()
		}
	}
}

// watcher turns hints into changes by comparing what the engine says now with
// what it said before.
type watcher struct {
	reg  registry.Registry
	only string
	wake chan struct{}
	seen map[string]state // used by one goroutine

	mu    sync.Mutex
	dirty map[string]bool
	all   bool
}

// state is what was last reported of a service.
type state struct {
	print   string // its JSON, to see whether anything differs
	service registry.Service
}

// emitError marks an error of the receiver, which ends the watch.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

// note remembers what an event is about; it never blocks.
func (w *watcher) note(ev registry.Event) {
	w.mu.Lock()
	switch {
	case ev.Name == "" && w.only == "":
		w.all = true
	case ev.Name == "" || w.only == "" || ev.Name == w.only:
		w.dirty[cmp.Or(ev.Name, w.only)] = true
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// round reads what is dirty and emits the differences; the first round only
// takes note of what is there. What could not be read stays dirty.
func (w *watcher) round(ctx context.Context, first bool, emit func(Change) error) error {
	names, err := w.take(ctx)
	if err != nil {
		return err
	}
	for i, name := range names {
		c, err := w.compare(ctx, name)
		if err != nil {
			w.mu.Lock()
			for _, left := range names[i:] {
				w.dirty[left] = true
			}
			w.mu.Unlock()
			return err
		}
		if first || c.Action == "" {
			continue
		}
		if err := emit(c); err != nil {
			return &emitError{err}
		}
	}
	return nil
}

// take returns the names to look at.
func (w *watcher) take(ctx context.Context) ([]string, error) {
	w.mu.Lock()
	dirty, all := w.dirty, w.all
	w.dirty, w.all = map[string]bool{}, false
	w.mu.Unlock()
	if all {
		listed, err := w.reg.List(ctx)
		if err != nil {
			w.mu.Lock()
			w.all = true
			for name := range dirty {
				w.dirty[name] = true
			}
			w.mu.Unlock()
			return nil, err
		}
		for _, name := range listed {
			dirty[name] = true
		}
		for name := range w.seen {
			dirty[name] = true
		}
	}
	return slices.Sorted(maps.Keys(dirty)), nil
}

// compare reads one service and says how it differs from what was seen.
func (w *watcher) compare(ctx context.Context, name string) (Change, error) {
	versions, err := w.reg.Get(ctx, name)
	before, known := w.seen[name]
	switch {
	case errors.Is(err, registry.ErrNotFound):
		if !known {
			return Change{}, nil
		}
		delete(w.seen, name)
		return Change{Delete, before.service}, nil
	case err != nil:
		return Change{}, err
	}
	now := registry.Normalize(registry.Merge(name, versions))
	print, err := json.Marshal(versions)
	if err != nil {
		return Change{}, err
	}
	if known && before.print == string(print) {
		return Change{}, nil
	}
	w.seen[name] = state{print: string(print), service: now}
	if known {
		return Change{Update, now}, nil
	}
	return Change{Create, now}, nil
}
