package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/sleep"
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
// Changes made through this Discovery are reported each; of those made
// elsewhere, the ones between two answers of an engine that does not tell
// states are seen as one. When the engine goes away the watch waits for it and
// then reports what is different.
func (d *Discovery) Watch(ctx context.Context, name string, live func(), emit func(Change) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()

	w := &watcher{reg: d.reg, only: name, live: live, emit: emit, seen: map[string]state{}}
	w.queue.wake = make(chan struct{}, 1)
	if _, narrow := d.reg.(registry.NameWatcher); narrow && name == "" {
		// Such an engine's watch of everything tells names alone.
		defer d.follow(&w.queue)()
	}
	var hints sync.WaitGroup
	defer hints.Wait()
	defer cancel()
	hints.Go(func() { d.hints(ctx, name, w.note) })
	return w.run(ctx)
}

// follow lets q hear of changes made through this Discovery until the result
// is called.
func (d *Discovery) follow(q *queue) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.followers[q] = true
	return func() {
		d.mu.Lock()
		delete(d.followers, q)
		d.mu.Unlock()
		q.close()
	}
}

// tell makes the followers look at a service that was changed here, and waits
// until they have, so that the next change does not hide this one.
func (d *Discovery) tell(ctx context.Context, name string) {
	d.mu.Lock()
	followers := slices.Collect(maps.Keys(d.followers))
	d.mu.Unlock()
	for _, q := range followers {
		seen := make(chan struct{})
		q.put(hint{name: name, seen: seen})
		select {
		case <-seen:
		case <-ctx.Done():
			return
		case <-time.After(retry): // a receiver that slow has to live with less
		}
	}
}

// watcher turns hints into changes by comparing what the engine says now with
// what it said before. It is used by one goroutine, but for its queue.
type watcher struct {
	reg   registry.Registry
	only  string
	live  func()
	emit  func(Change) error
	queue queue

	begun bool // the first picture is complete: differences from now on are changes
	seen  map[string]state
}

// state is what was last reported of a service.
type state struct {
	print   string // its JSON, to see whether anything differs
	service registry.Service
}

// emitError marks an error of the receiver, which ends the watch.
type emitError struct{ err error }

func (e *emitError) Error() string { return e.err.Error() }

// note queues what an event is about; it never blocks.
func (w *watcher) note(ev registry.Event) {
	if ev.Name == "" || w.only == "" || ev.Name == w.only {
		w.queue.put(hint{name: ev.Name, services: ev.Services})
	}
}

// run deals with hints until ctx ends or the receiver fails.
func (w *watcher) run(ctx context.Context) error {
	look := time.NewTicker(jitter(watchResync))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-look.C: // a hint may have been lost with an engine's host
			if w.begun {
				w.note(registry.Event{})
			}
			continue
		case <-w.queue.wake:
		}
		hints := w.queue.take()
		for i, h := range hints {
			err := w.handle(ctx, h)
			if err == nil {
				h.done()
				continue
			}
			w.queue.putBack(hints[i:])
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if e := (*emitError)(nil); errors.As(err, &e) {
				return e.err
			}
			// The engine is away: what was hinted at is looked at later.
			if err := sleep.For(ctx, jitter(retry)); err != nil {
				return err
			}
			break
		}
	}
}

// handle deals with one hint. The first one about everything makes the first
// picture.
func (w *watcher) handle(ctx context.Context, h hint) error {
	switch {
	case h.name != "" && h.services != nil:
		return w.compare(h.name, h.services)
	case h.name != "":
		return w.read(ctx, h.name)
	case w.only != "":
		if err := w.read(ctx, w.only); err != nil {
			return err
		}
	default:
		if err := w.readAll(ctx); err != nil {
			return err
		}
	}
	if !w.begun {
		w.begun = true
		w.live()
	}
	return nil
}

func (w *watcher) readAll(ctx context.Context) error {
	asked, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	listed, err := w.reg.List(asked)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, name := range listed {
		names[name] = true
	}
	for name := range w.seen {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if err := w.read(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) read(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	versions, err := w.reg.Get(ctx, name)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return err
	}
	return w.compare(name, versions)
}

// compare reports how a service differs from what was seen of it.
func (w *watcher) compare(name string, versions []registry.Service) error {
	before, known := w.seen[name]
	if len(versions) == 0 {
		delete(w.seen, name)
		if !known {
			return nil
		}
		return w.report(Delete, before.service)
	}
	print, err := json.Marshal(versions)
	if err != nil {
		return &emitError{err}
	}
	if known && before.print == string(print) {
		return nil
	}
	now := registry.Merge(name, versions)
	w.seen[name] = state{print: string(print), service: now}
	if known {
		return w.report(Update, now)
	}
	return w.report(Create, now)
}

func (w *watcher) report(action string, s registry.Service) error {
	if !w.begun {
		return nil
	}
	if err := w.emit(Change{action, s}); err != nil {
		return &emitError{err}
	}
	return nil
}
