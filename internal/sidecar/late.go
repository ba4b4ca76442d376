package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

const (
	// openPatience is how long one of several registries may take to open
	// before the others go on without it.
	openPatience = 2 * time.Second
	// openAgain is the pause between tries to open it later.
	openAgain = time.Second
)

// late is one of several registries, that was away when it was to be opened:
// the others do not wait for it. It fails until it is there, and tries until
// it is closed.
type late struct {
	cancel context.CancelFunc
	ended  chan struct{}
	opened chan struct{} // closed when reg is there

	mu  sync.Mutex
	reg registry.Registry
	why error // while reg is not there
}

var (
	_ registry.Registry = (*late)(nil)
	_ registry.Pinger   = (*late)(nil)
	_ io.Closer         = (*late)(nil)
)

// openLate opens a registry, or returns one that is opened later if its engine
// does not answer. What will not be better later is an error.
func openLate(ctx context.Context, open func(context.Context) (registry.Registry, error), log *slog.Logger) (registry.Registry, error) {
	first, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	reg, err := open(first)
	if err == nil || !away(err) || ctx.Err() != nil {
		return reg, err
	}
	log.Warn("a registry does not answer; the others go on without it", "error", err)
	trying, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &late{cancel: stop, ended: make(chan struct{}), opened: make(chan struct{}), why: err}
	go func() {
		defer close(l.ended)
		l.run(trying, open, log)
	}()
	return l, nil
}

// away tells an engine that may come from one that cannot be used.
func away(err error) bool { return timedOut(err) || errors.Is(err, engine.ErrNoHost) }

func (l *late) run(ctx context.Context, open func(context.Context) (registry.Registry, error), log *slog.Logger) {
	for {
		if sleep.For(ctx, openAgain) != nil {
			return
		}
		reg, err := open(ctx)
		l.mu.Lock()
		l.reg, l.why = reg, err
		l.mu.Unlock()
		switch {
		case err == nil:
			log.Info("a registry that was away answers")
			close(l.opened)
			return
		case ctx.Err() != nil:
			return
		case !away(err):
			log.Error("a registry cannot be used; trying on", "error", err)
		}
	}
}

// now returns the registry if it is there.
func (l *late) now() (registry.Registry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why != nil {
		return nil, fmt.Errorf("it has not been reached yet: %w", l.why)
	}
	return l.reg, nil
}

// Register implements [registry.Registry].
func (l *late) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	reg, err := l.now()
	if err != nil {
		return err
	}
	return reg.Register(ctx, s, ttl)
}

// Deregister implements [registry.Registry].
func (l *late) Deregister(ctx context.Context, s registry.Service) error {
	reg, err := l.now()
	if err != nil {
		return err
	}
	return reg.Deregister(ctx, s)
}

// Get implements [registry.Registry].
func (l *late) Get(ctx context.Context, name string) ([]registry.Service, error) {
	reg, err := l.now()
	if err != nil {
		return nil, err
	}
	return reg.Get(ctx, name)
}

// List implements [registry.Registry].
func (l *late) List(ctx context.Context) ([]string, error) {
	reg, err := l.now()
	if err != nil {
		return nil, err
	}
	return reg.List(ctx)
}

// Watch implements [registry.Registry]: it begins when the registry is there.
func (l *late) Watch(ctx context.Context, changed func(registry.Event)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ended: // closed before it was there
	case <-l.opened:
	}
	reg, err := l.now()
	if err != nil {
		return err
	}
	return reg.Watch(ctx, changed)
}

// Ping implements [registry.Pinger].
func (l *late) Ping(ctx context.Context) error {
	reg, err := l.now()
	if err != nil {
		return err
	}
	if p, ok := reg.(registry.Pinger); ok {
		return p.Ping(ctx)
	}
	return nil
}

// Close gives the registry up, or closes it.
func (l *late) Close() error {
	l.cancel()
	<-l.ended
	reg, err := l.now()
	if c, ok := reg.(io.Closer); ok && err == nil {
		return c.Close()
	}
	return nil
}
