package natsquery

import (
	"context"

	"github.com/micro/sidecar/registry"
)

// watcher is one call of Watch. All but wake is guarded by Registry.mu.
type watcher struct {
	names map[string]bool // changed and not yet told
	order []string
	live  bool // the zero event is told or under way; after an outage another one is due
	wake  chan struct{}
}

// put notes a change; Registry.mu is held.
func (w *watcher) put(name string) {
	if !w.names[name] {
		w.names[name] = true
		w.order = append(w.order, name)
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch implements [registry.Registry]. It never breaks; it reports the zero
// event after the first round of answers, and after the first one that follows
// an outage.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	w := &watcher{names: map[string]bool{}, wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.watchers[w] = struct{}{}
	if r.ready && r.link.Up() {
		w.live = true
		w.put("")
	}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
		r.mu.Lock()
		names := w.order
		w.order, w.names = nil, map[string]bool{}
		r.mu.Unlock()
		for _, name := range names {
			changed(registry.Event{Name: name})
		}
	}
}

// notify tells all watchers of a change; r.mu is held.
func (r *Registry) notify(name string) {
	for w := range r.watchers {
		w.put(name)
	}
}

// disconnected notes that changes may be missed from now on.
func (r *Registry) disconnected() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.watchers {
		w.live = false
	}
}
