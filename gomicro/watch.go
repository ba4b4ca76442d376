package gomicro

import (
	"context"
	"log/slog"
	"sync"
	"time"

	micro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/registry"
)

// Watch implements [registry.Registry]. What go-micro's watch says is a hint, and its
// silence says nothing: everything is looked at again every [Options.Refresh].
// A watch that breaks, or that the engine does not have, is begun anew with the
// next look; it never ends this one.
func (r *RegistryAdapter) Watch(ctx context.Context, changed func(registry.Event)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h := &hints{wake: make(chan struct{}, 1)}
	r.follow(h)
	defer r.unfollow(h)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed(registry.Event{}) // changes made here are told from now on

	broken := make(chan struct{}, 1)
	listening := r.listen(ctx, h, broken)
	look := time.NewTimer(jitter(r.options.Refresh))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-broken:
			listening = false
		case <-h.wake:
			for _, name := range h.take() {
				changed(registry.Event{Name: name})
			}
		case <-look.C:
			if !listening {
				listening = r.listen(ctx, h, broken)
			}
			changed(registry.Event{})
			look.Reset(jitter(r.options.Refresh))
		}
	}
}

// listen follows go-micro's watch on a goroutine of its own, until ctx ends or
// it breaks, which broken tells. It reports whether there is something to
// listen to.
func (r *RegistryAdapter) listen(ctx context.Context, h *hints, broken chan<- struct{}) bool {
	if r.traits.blind {
		return false
	}
	go func() {
		defer func() {
			if p := recover(); p != nil {
				r.odd.warn(r.options.Log, "go-micro's watch panicked", "panic", p)
			}
			broken <- struct{}{}
		}()
		w, err := do(ctx, r.reads, "watch", func() (micro.Watcher, error) { return r.reg.Watch() }, micro.Watcher.Stop)
		if err != nil {
			if ctx.Err() == nil {
				r.odd.warn(r.options.Log, "go-micro's watch cannot begin; the registry is asked every now and then", "error", err)
			}
			return
		}
		stop := sync.OnceFunc(w.Stop)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		h.put("") // what changed before it began
		for {
			result, err := w.Next()
			if err != nil || ctx.Err() != nil {
				return
			}
			if result == nil || result.Service == nil || r.traits.batches {
				h.put("")
				continue
			}
			h.put(result.Service.Name)
		}
	}()
	return true
}

func (r *RegistryAdapter) follow(h *hints) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[h] = true
}

func (r *RegistryAdapter) unfollow(h *hints) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.watchers, h)
}

// hint tells those who watch of a change that was made here.
func (r *RegistryAdapter) hint(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h := range r.watchers {
		h.put(name)
	}
}

// maxHints is how many names wait for a watch; beyond that they are one that
// means everything.
const maxHints = 1024

// hints are the names of services that may have changed, "" for all.
type hints struct {
	wake chan struct{} // holds a token while there are some

	mu    sync.Mutex
	names []string
}

func (h *hints) put(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch last := len(h.names) - 1; {
	case last >= 0 && h.names[last] == name:
	case last+1 >= maxHints:
		h.names = []string{""}
	default:
		h.names = append(h.names, name)
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hints) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	names := h.names
	h.names = nil
	return names
}

// quiet logs a line a minute at most: what is odd in a registry stays odd.
type quiet struct {
	mu   sync.Mutex
	last time.Time
}

func (q *quiet) warn(log *slog.Logger, text string, args ...any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Since(q.last) >= time.Minute {
		q.last = time.Now()
		log.Warn(text, args...)
	}
}
