package memory

import (
	"context"

	"github.com/micro/sidecar/registry"
)

// watcher is what one Watch has not been told yet: each change, with what the
// service was then. A slow watcher holds up nobody.
type watcher struct {
	pending []registry.Event // guarded by Registry.mu
	err     error            // what broke the watch, guarded by Registry.mu
	ready   chan struct{}    // holds one token when there is work
}

func (w *watcher) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// notify tells every watcher that a service changed. r.mu is held.
func (r *Registry) notify(name string) {
	for w := range r.watchers {
		w.pending = append(w.pending, registry.Event{Name: name, Services: r.get(name)})
		w.wake()
	}
}

// Watch implements [registry.Registry]. Its events carry the services.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	w := &watcher{ready: make(chan struct{}, 1)}
	r.mu.Lock()
	if err := r.usable(ctx); err != nil {
		r.mu.Unlock()
		return err
	}
	r.watchers[w] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, w)
	}()

	changed(registry.Event{})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ready:
		}
		events, err := r.take(w)
		if err != nil {
			return err
		}
		for _, e := range events {
			changed(e)
		}
	}
}

// take returns what w has to report.
func (r *Registry) take(w *watcher) ([]registry.Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	events := w.pending
	w.pending = nil
	return events, nil
}
