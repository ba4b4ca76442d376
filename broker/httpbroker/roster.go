package httpbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/registry"
)

// Registrations live as long, and are renewed as often, as go-micro's.
const (
	registerTTL      = 60 * time.Second
	registerInterval = 30 * time.Second
	// registerRetry is the interval while a renewal has failed.
	registerRetry   = 2 * time.Second
	registerTimeout = 5 * time.Second
	// registerAtOnce is how many registrations are renewed side by side.
	registerAtOnce = 8
)

// roster keeps registrations alive.
type roster struct {
	registry registry.Registry
	log      *slog.Logger
	tasks    sync.WaitGroup

	mu      sync.Mutex
	entries map[*entry]bool
	failing bool
}

// entry is one registered subscription: a service in each generation.
type entry struct {
	services []registry.Service
	ctx      context.Context // ends when the entry is removed
	cancel   context.CancelFunc
	// mu is held while the registry is told about the entry, so that no
	// renewal under way brings back what was removed.
	mu sync.Mutex
}

func newRoster(r registry.Registry, log *slog.Logger) *roster {
	return &roster{registry: r, log: log, entries: map[*entry]bool{}}
}

// add registers the services; they are visible and kept alive when it returns.
func (r *roster) add(ctx context.Context, services []registry.Service) (*entry, error) {
	e := &entry{services: services}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	if err := r.register(ctx, e); err != nil {
		// Some of it may have arrived. The caller need not wait for this.
		r.tasks.Go(func() { r.remove(e) })
		return nil, err
	}
	r.mu.Lock()
	r.entries[e] = true
	r.mu.Unlock()
	return e, nil
}

// register registers or renews all services of the entry.
func (r *roster) register(ctx context.Context, e *entry) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range e.services {
		group.Go(func() error {
			if err := r.registry.Register(ctx, s, registerTTL); err != nil {
				return fmt.Errorf("register at %q: %w", s.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// remove takes the services out of the registry. Where that fails they are
// gone after their TTL; until then the listener refuses what is sent to them.
func (r *roster) remove(e *entry) {
	r.mu.Lock()
	delete(r.entries, e)
	r.mu.Unlock()
	e.cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	errs := make([]error, len(e.services))
	var wg sync.WaitGroup
	for i, s := range e.services {
		wg.Go(func() { errs[i] = r.registry.Deregister(ctx, s) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		r.log.Warn("http broker: a closed subscription stays registered until its time is up", "ttl", registerTTL, "error", err)
	}
}

func (r *roster) wait() { r.tasks.Wait() }

// run renews the entries until ctx ends.
func (r *roster) run(ctx context.Context) {
	wait := registerInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = registerInterval
		if err := r.renew(ctx); err != nil {
			wait = registerRetry
		}
	}
}

// renew renews all entries once.
func (r *roster) renew(ctx context.Context) error {
	r.mu.Lock()
	entries := make([]*entry, 0, len(r.entries))
	for e := range r.entries {
		entries = append(entries, e)
	}
	r.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(registerAtOnce)
	for _, e := range entries {
		group.Go(func() error {
			if err := r.register(ctx, e); err != nil && e.ctx.Err() == nil {
				return err
			}
			return nil
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && !r.failing:
		r.log.Warn("http broker: subscriptions cannot be renewed in the registry, trying again", "every", registerRetry, "error", err)
	case err == nil && r.failing:
		r.log.Info("http broker: subscriptions are registered again")
	}
	r.failing = err != nil
	return err
}
