package merged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"

	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

// member is one registry with its last good answers, for when it fails.
type member struct {
	Member
	log *slog.Logger

	mu       sync.Mutex
	late     bool // the last answer did not come in time
	failing  bool // the last answer was an error
	services map[string][]registry.Service
	names    []string
}

// get asks this registry. With an error may come its last good answer.
func (m *member) get(ctx context.Context, name string) ([]registry.Service, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	services, err := m.Registry.Get(ctx, name)
	missing := errors.Is(err, registry.ErrNotFound)
	if m.took(ctx, err, missing); missing {
		err = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err != nil:
		return m.services[name], fmt.Errorf("%s: %w", m.Name, err)
	case missing:
		delete(m.services, name)
		return nil, nil
	}
	m.services[name] = services
	return services, nil
}

// list asks this registry. With an error may come its last good answer.
func (m *member) list(ctx context.Context) ([]string, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	names, err := m.Registry.List(ctx)
	m.took(ctx, err, false)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		return m.names, fmt.Errorf("%s: %w", m.Name, err)
	}
	m.names = names
	return names, nil
}

func (m *member) ping(ctx context.Context) error {
	p, ok := m.Registry.(registry.Pinger)
	if !ok {
		return ctx.Err()
	}
	if err := p.Ping(ctx); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	return nil
}

// bounded gives the call the time that this registry deserves.
func (m *member) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.late {
		return context.WithTimeout(ctx, impatience)
	}
	return context.WithTimeout(ctx, patience)
}

// took notes how a call went, and logs when that is news.
func (m *member) took(ctx context.Context, err error, missing bool) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // by the caller
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	failing := err != nil && !missing
	m.late = failing && ctx.Err() != nil
	switch {
	case failing && !m.failing:
		m.log.Warn("a registry cannot be asked; what it answered last stays in use", "registry", m.Name, "error", err)
	case !failing && m.failing:
		m.log.Info("a registry answers again", "registry", m.Name)
	}
	m.failing = failing
}

// watch watches this registry until ctx ends.
func (m *member) watch(ctx context.Context, changed func(registry.Event)) {
	pause := firstPause
	for ctx.Err() == nil {
		err := m.Registry.Watch(ctx, func(e registry.Event) {
			pause = firstPause
			changed(e)
		})
		if ctx.Err() != nil {
			return
		}
		m.log.Warn("a registry's watch broke; starting it again", "registry", m.Name, "error", err)
		if sleep.For(ctx, pause/2+rand.N(pause/2)) != nil {
			return
		}
		pause = min(2*pause, lastPause)
	}
}
