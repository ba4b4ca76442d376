package sidecar

import (
	"context"
	"fmt"
	"time"

	"github.com/micro/sidecar/internal/sleep"
)

// ready says why the sidecar is not: an engine cannot be reached, or a durable
// queue of its own is not declared yet.
func (s *sidecar) ready(ctx context.Context) error {
	if err := s.engines.Ping(ctx); err != nil {
		return err
	}
	return s.pushes.ready()
}

// tellReadiness logs whether the engines can be reached and the queues are
// declared, now and whenever that changes.
func (s *sidecar) tellReadiness(ctx context.Context) {
	const every = 2 * time.Second
	ready, away := false, false
	for {
		err := s.engines.Ping(ctx)
		declared := s.pushes.ready() == nil
		if s.engines.registryDown() {
			s.discovery.Away()
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !away:
			s.log.Warn("not ready: an engine cannot be reached; trying on", "error", err)
		case err == nil && declared && !ready:
			s.log.Info("ready")
		}
		ready, away = err == nil && declared, err != nil
		select {
		case <-ctx.Done():
			return
		case <-s.pushes.news:
		case <-time.After(every):
		}
	}
}

// watchForConsul warns, once, when a Consul agent appears after the embedded
// engine was chosen because there was none.
func (s *sidecar) watchForConsul(ctx context.Context, d Drivers) {
	const every = 10 * time.Second
	for sleep.For(ctx, every) == nil {
		if reg := probeConsul(ctx, d, s.log); reg != nil {
			s.log.Warn(fmt.Sprintf("a Consul agent answers at %s now, and the embedded engine is in use; restart, or name one with --registry", consulAddress()))
			closeIf(reg)
			return
		}
	}
}
