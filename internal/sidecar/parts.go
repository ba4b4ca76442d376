package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// part is a piece of the sidecar that is stopped in its turn.
type part struct {
	name string
	stop func(ctx context.Context) error
}

// stopAll stops the parts in order, whatever fails, under one deadline.
func stopAll(ctx context.Context, log *slog.Logger, list []part) error {
	var errs []error
	for _, p := range list {
		log.Debug("stopping", "part", p.name)
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
		}
	}
	return errors.Join(errs...)
}

// task is something that runs in the background. The zero value is one that
// was never begun, and may be stopped.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// begin runs f until the task is stopped.
func (t *task) begin(f func(context.Context)) {
	var ctx context.Context
	ctx, t.cancel = context.WithCancel(context.Background())
	t.done = make(chan struct{})
	go func() {
		defer close(t.done)
		f(ctx)
	}()
}

// stop ends the task and waits for it until ctx ends.
func (t *task) stop(ctx context.Context) error {
	if t.cancel == nil {
		return nil
	}
	t.cancel()
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
