package cli

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/sidecar"
)

// pollInterval is how often the configuration file is looked at. To look works
// everywhere: with editors that write anew, with links that are moved, and on
// file systems that tell nothing.
const pollInterval = time.Second

// reloader reads the settings again when the file changes or somebody asks.
type reloader struct {
	i       *invocation
	log     *slog.Logger
	changes chan sidecar.Change
	asked   chan struct{}         // holds one request
	apps    []sidecar.Application // of the file, as they run
}

func newReloader(i *invocation, log *slog.Logger) *reloader {
	return &reloader{i: i, log: log, changes: make(chan sidecar.Change), asked: make(chan struct{}, 1), apps: i.cfg.Sidecar.Applications}
}

// possible reports whether there is something to read again.
func (r *reloader) possible() bool { return r.i.cfg.File != "" }

// ask has the file read again, be it changed or not.
func (r *reloader) ask() {
	select {
	case r.asked <- struct{}{}:
	default: // it will be read in a moment
	}
}

// watch follows the file, if there is one, until stop is called.
func (r *reloader) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	last := r.content()
	go func() {
		defer close(done)
		ticker := time.NewTicker(pollInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.asked:
				last = r.content()
			case <-ticker.C:
				// A file that is away for a moment is being replaced.
				now := r.content()
				if !r.possible() || now == nil || bytes.Equal(now, last) {
					continue
				}
				last = now
			}
			r.reload(ctx)
		}
	}()
	return func() { cancel(); <-done }
}

// content returns what the file holds, nil when it cannot be read or is none.
func (r *reloader) content() []byte {
	f, err := os.Open(r.i.cfg.File)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil
	}
	return data
}

// reload reads all settings again, if there is a file. A mistake changes nothing.
// The sidecar is told in any case: somebody may wait for it to have been done.
func (r *reloader) reload(ctx context.Context) {
	if !r.possible() {
		r.change(ctx, sidecar.Change{})
		return
	}
	cfg, restart, err := r.load()
	if err != nil {
		r.log.Error("the configuration was not reloaded and stays as it was", "error", oneLine(err.Error()))
		r.change(ctx, sidecar.Change{Err: err})
		return
	}
	if len(restart) > 0 {
		r.log.Warn("these settings take effect at the next start", "settings", strings.Join(restart, " "))
	}
	if cfg.LogLevel != nil {
		r.i.level.Set(*cfg.LogLevel)
	} else {
		r.i.level.Set(slog.LevelInfo)
	}
	r.change(ctx, sidecar.Change{Config: &cfg.Sidecar})
}

// change hands a change to the sidecar, unless that is stopping.
func (r *reloader) change(ctx context.Context, c sidecar.Change) {
	select {
	case r.changes <- c:
	case <-ctx.Done():
	}
}

// load returns the Config to go on with, and the names of the settings that
// were changed and need a restart: these keep their values.
func (r *reloader) load() (*Config, []string, error) {
	next, err := gather(r.i.flags, r.i.env)
	if err != nil {
		return nil, nil, err
	}
	if _, err := r.finish(next); err != nil {
		return nil, nil, err
	}
	restart := next.keep(r.i.flags, r.i.all)
	cfg, err := r.finish(next)
	if err != nil {
		return nil, nil, err
	}
	if !adopt(r.apps, cfg.Sidecar.Applications) {
		cfg.Sidecar.Applications = r.apps
		restart = append(restart, listKey+" ("+commandKey+")")
	}
	r.apps = cfg.Sidecar.Applications
	return cfg, restart, nil
}

// adopt gives the applications of next the programs that run for those of old. It
// is false, and next of no use, when other programs would have to run.
func adopt(old, next []sidecar.Application) bool {
	var running []sidecar.Application
	for _, app := range old {
		if app.Child != nil {
			running = append(running, app)
		}
	}
	for n := range next {
		app := &next[n]
		if len(app.Command) == 0 {
			continue
		}
		same := func(r sidecar.Application) bool { return slices.Equal(r.Command, app.Command) }
		at := slices.IndexFunc(running, func(r sidecar.Application) bool { return same(r) && r.App.Address == app.App.Address })
		if at < 0 {
			at = slices.IndexFunc(running, same)
		}
		if at < 0 {
			return false
		}
		app.Child = running[at].Child
		running = slices.Delete(running, at, at+1)
	}
	return len(running) == 0
}

// finish makes a Config that a running sidecar can go on with.
func (r *reloader) finish(all *settled) (*Config, error) {
	c, from, err := all.config(r.i.flags, r.i.drivers)
	if err != nil {
		return nil, err
	}
	c.command = r.i.cfg.command
	return c, c.finishRunning(from)
}

// keep gives the settings that need a restart the values that they had, and
// returns the names of those that would have another.
func (all *settled) keep(flags *flagSet, had *settled) []string {
	var changed []string
	for _, s := range flags.settings {
		if s.reload {
			continue
		}
		if !slices.Equal(had.items(s), all.items(s)) {
			changed = append(changed, s.name)
		}
		was, before := had.values[s.name]
		delete(all.values, s.name)
		if before {
			all.values[s.name] = was
		}
	}
	return changed
}

// items returns what counts for a setting, the default if nothing was given.
func (all *settled) items(s *setting) []string {
	if g, ok := all.values[s.name]; ok {
		return g.items
	}
	if s.def == "" {
		return nil
	}
	return s.items(s.def)
}
