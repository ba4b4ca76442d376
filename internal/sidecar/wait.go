package sidecar

import (
	"context"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/sdnotify"
)

// wait returns when ctx ends, when a child has ended, or with the error of a
// listener that broke. Meanwhile it takes new configurations and tells the
// service manager how things are: its signs of life come from here, where a
// stop would begin.
func (s *sidecar) wait(ctx context.Context) error {
	alive, stop := signsOfLife(s.cfg.Control.Manager.Period())
	defer stop()
	told := false
	var change Change         // the latest, until
	var taken <-chan struct{} // it is
	for {
		var changed <-chan struct{}
		if !told {
			if changed = s.awaitsChild(); changed == nil {
				told = true
				s.tell(sdnotify.Ready, sdnotify.Status("serving"))
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.server.Failed():
			return err
		case <-s.cfg.Control.Children.Ended():
			first := s.cfg.Control.Children.First()
			status, _ := first.Ended()
			s.log.Info("application ended", "status", status, "command", first.Name())
			return nil
		case change = <-s.cfg.Control.Changes:
			if told {
				s.tell(sdnotify.Reloading())
			}
			taken = s.take(&change, taken)
		case <-taken:
			taken = nil
			s.taken(change, told)
		case <-s.cfg.Control.Rotated:
			if s.accessLog != nil {
				s.accessLog.Reopen()
			}
		case <-changed:
		case <-alive:
			s.tell(sdnotify.Watchdog)
		}
	}
}

// awaitsChild returns what is closed when the health changes of an application
// that is to be well before this service is ready; nil when all are: to the
// service manager children are part of it.
func (s *sidecar) awaitsChild() <-chan struct{} {
	for _, app := range s.apps.list() {
		if changed := app.state.Changed(); app.spec.Child != nil && !app.Healthy() {
			return changed
		}
	}
	return nil
}

// signsOfLife ticks twice as often as the service manager wants; never for 0.
func signsOfLife(period time.Duration) (<-chan time.Time, func()) {
	if period == 0 {
		return nil, func() {}
	}
	ticker := time.NewTicker(max(period/2, time.Millisecond))
	return ticker.C, ticker.Stop
}

// tell tells the service manager, when there is one.
func (s *sidecar) tell(states ...string) {
	if err := s.cfg.Control.Manager.Tell(states...); err != nil {
		s.log.Warn("the service manager cannot be told", "error", err)
	}
}

// take takes a change. What it returns is closed when that is done, and what was
// under way before.
func (s *sidecar) take(c *Change, before <-chan struct{}) <-chan struct{} {
	if c.Config != nil {
		declared, err := s.reload(*c.Config)
		if err == nil {
			return declared
		}
		s.log.Error("the configuration stays as it was", "error", err)
		*c = Change{Err: err}
	}
	if before != nil {
		return before
	}
	nothing := make(chan struct{})
	close(nothing)
	return nothing
}

// taken tells that a change was taken: the service manager, which may wait for
// it, when it knows that we are ready.
func (s *sidecar) taken(c Change, told bool) {
	if c.Config != nil {
		s.log.Info("configuration reloaded")
	}
	status := "serving"
	if c.Err != nil {
		status += "; the configuration was not reloaded: " + strings.ReplaceAll(c.Err.Error(), "\n", "; ")
	}
	if told {
		s.tell(sdnotify.Ready, sdnotify.Status(status))
	}
}

// reload goes on with cfg: requests that begin from now on have new handlers,
// and the applications become those of cfg. What lives as long as the sidecar
// stays as it is. What it returns is closed when new durable queues are declared,
// too, or the engine is away.
func (s *sidecar) reload(cfg Config) (declared <-chan struct{}, err error) {
	cfg.Control, cfg.TLS, cfg.Tokens = s.cfg.Control, s.cfg.TLS, s.cfg.Tokens // they have their own ways
	routes, err := s.routes(&cfg)
	if err != nil {
		return nil, err
	}
	s.cfg, s.api = cfg, routes
	s.server.Switch(routes)
	s.admin.own.Store(routes)
	s.apps.apply(cfg.applications())
	return s.pushes.want(pushesOf(&cfg), cfg.ShutdownGrace), nil
}
