package picture

import (
	"context"
	"slices"

	"github.com/micro/sidecar/registry"
)

// watcher collects the names of what changed until its watch comes round to
// telling: a slow one is told of the last state of each service, once.
type watcher struct {
	changed map[string]struct{} // guarded by Picture.mu
	order   []string            // guarded by Picture.mu; of the changes not told yet
	woken   chan struct{}
}

// note adds a change; Picture.mu is held.
func (w *watcher) note(name string) {
	if _, noted := w.changed[name]; !noted {
		w.changed[name] = struct{}{}
		w.order = append(w.order, name)
	}
	w.wake()
}

func (w *watcher) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

// Watch implements [registry.Registry]. It never breaks. Its events carry the
// services, in the order of their changes.
func (p *Picture) Watch(ctx context.Context, changed func(registry.Event)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &watcher{changed: map[string]struct{}{}, woken: make(chan struct{}, 1)}
	p.mu.Lock()
	p.watchers[w] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, w)
	}()
	w.wake()
	begun := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.woken:
		}
		events, known := p.take(w)
		if !known {
			continue
		}
		if !begun { // what is there, and what changed before this line, is one
			begun = true
			changed(registry.Event{})
			continue
		}
		for _, e := range events {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			changed(e)
		}
	}
}

// take returns what w has not been told yet.
func (p *Picture) take(w *watcher) (events []registry.Event, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range w.order {
		services := append([]registry.Service{}, p.services[name]...) // not nil: gone
		events = append(events, registry.Event{Name: name, Services: slices.Clip(services)})
	}
	clear(w.changed)
	w.order = nil
	return events, p.known
}
