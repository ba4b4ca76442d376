package httpbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

const (
	lookupTimeout = 2 * time.Second
	// maxLookups bounds the names whose last answer is kept.
	maxLookups = 4096
)

// lookups asks the registry for the subscribers, at most once at a time for
// each name. Who asks gets an answer to a question that was put after he
// asked, never an earlier one: a subscription that was live before is in it.
// Those who ask while a question is under way share the next.
type lookups struct {
	registry registry.Registry
	log      *slog.Logger
	ctx      context.Context
	tasks    sync.WaitGroup

	mu      sync.Mutex
	names   map[string]*lookup
	failing bool
}

// lookup is what is known and asked about one name.
type lookup struct {
	running bool
	next    *question // to be put when the one under way is answered
	known   bool      // the registry has answered before
	last    []registry.Service
}

// question is shared by all who wait for its answer.
type question struct {
	answered chan struct{}
	services []registry.Service
	err      error
}

func newLookups(ctx context.Context, r registry.Registry, log *slog.Logger) *lookups {
	return &lookups{registry: r, log: log, ctx: ctx, names: map[string]*lookup{}}
}

// get returns the service's versions, none when it is unknown. When the
// registry cannot be asked it returns the last answer it gave; the error means
// that there is none.
func (l *lookups) get(ctx context.Context, name string) ([]registry.Service, error) {
	q := l.ask(name)
	select {
	case <-q.answered:
		return q.services, q.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask joins the next question about name, and puts it if none is under way.
func (l *lookups) ask(name string) *question {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.names[name]
	if e == nil {
		l.forget()
		e = &lookup{}
		l.names[name] = e
	}
	if e.next == nil {
		e.next = &question{answered: make(chan struct{})}
	}
	q := e.next
	if !e.running {
		e.running = true
		l.tasks.Go(func() { l.run(name, e) })
	}
	return q
}

// forget makes room for another name.
func (l *lookups) forget() {
	if len(l.names) < maxLookups {
		return
	}
	for name, e := range l.names {
		if !e.running {
			delete(l.names, name)
			return
		}
	}
}

// run puts questions until nobody waits for another.
func (l *lookups) run(name string, e *lookup) {
	for {
		l.mu.Lock()
		q := e.next
		e.next = nil
		e.running = q != nil
		l.mu.Unlock()
		if q == nil {
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, lookupTimeout)
		services, err := l.registry.Get(ctx, name)
		cancel()
		if errors.Is(err, registry.ErrNotFound) {
			services, err = nil, nil
		}
		q.services, q.err = l.settle(name, e, services, err)
		close(q.answered)
	}
}

// settle keeps an answer, or falls back to the one that was kept.
func (l *lookups) settle(name string, e *lookup, services []registry.Service, err error) ([]registry.Service, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		if l.failing {
			l.failing = false
			l.log.Info("http broker: the registry answers again")
		}
		e.known, e.last = true, services
		return services, nil
	}
	if e.known {
		if !l.failing && l.ctx.Err() == nil {
			l.failing = true
			l.log.Warn("http broker: the registry does not answer, subscribers are those it named last", "error", err)
		}
		return e.last, nil
	}
	return nil, fmt.Errorf("look up %q: %w", name, err)
}

func (l *lookups) wait() { l.tasks.Wait() }
