package consul

import (
	"context"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

const (
	// maxWatches is how many services are watched by a query of their own. An
	// agent takes 200 connections from one machine (http_max_conns_per_client),
	// and there may be ten sidecars on it.
	maxWatches = 32
	// sweepGap is the pause between two services that are read again because
	// the catalog changed, which does not show what it was.
	sweepGap = 10 * time.Millisecond
)

// shared is one watch of all services, which runs while somebody listens: an
// agent sees two queries, however many listeners there are.
type shared struct {
	registry *Registry

	mu        sync.Mutex // held over the listeners' changed: one call at a time
	listeners map[*listener]struct{}
	running   *allWatch // nil while nobody listens
}

// listener hears of all services, or of only one.
type listener struct {
	only    string
	changed func(registry.Event)
}

// allWatch is one run of the watch.
type allWatch struct {
	ctx   context.Context //nolint:containedctx // it is the run's life
	stop  context.CancelFunc
	ended chan struct{}
	live  int           // how many of the two queries were answered
	dirty chan struct{} // holds a token when the catalog has changed
}

// join has l told of changes until leave is called, after which it hears
// nothing more.
func (s *shared) join(l *listener) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[l] = struct{}{}
	if s.running == nil {
		ctx, stop := context.WithCancel(context.Background())
		w := &allWatch{ctx: ctx, stop: stop, ended: make(chan struct{}), dirty: make(chan struct{}, 1)}
		s.running = w
		go s.run(w)
	} else if s.running.live == queries {
		l.changed(registry.Event{})
	}
	return func() {
		if w := s.leave(l); w != nil {
			w.stop()
			<-w.ended
		}
	}
}

// leave returns the watch that l was the last to listen to.
func (s *shared) leave(l *listener) *allWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if len(s.listeners) > 0 {
		return nil
	}
	w := s.running
	s.running = nil
	return w
}

func (s *shared) run(w *allWatch) {
	defer close(w.ended)
	var work sync.WaitGroup
	s.registry.watchAll(w.ctx, &work, func(n note) { s.tell(w, n) })
	work.Go(func() { s.sweep(w) })
	work.Wait()
}

// tell passes a note on to whom it concerns.
func (s *shared) tell(w *allWatch, n note) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != w {
		return
	}
	if n.fresh {
		w.live = min(w.live+1, queries)
	}
	for l := range s.listeners {
		switch {
		case n.fresh:
			l.changed(registry.Event{})
		case l.only == "" || l.only == n.name:
			l.changed(registry.Event{Name: n.name})
		}
	}
	if n.name == "" && !n.fresh {
		select {
		case w.dirty <- struct{}{}:
		default:
		}
	}
}

// sweep has those who listen for one service read it again after the catalog
// has changed, one after the other.
func (s *shared) sweep(w *allWatch) {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.dirty:
		}
		for _, l := range s.narrow() {
			s.mu.Lock()
			if _, there := s.listeners[l]; there {
				l.changed(registry.Event{Name: l.only})
			}
			s.mu.Unlock()
			if sleep.For(w.ctx, sweepGap) != nil {
				return
			}
		}
	}
}

// narrow returns the listeners for one service.
func (s *shared) narrow() (list []*listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.listeners {
		if l.only != "" {
			list = append(list, l)
		}
	}
	return list
}
