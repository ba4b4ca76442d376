package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
)

// applications is all that this sidecar registers. apply and stop are called
// one at a time; list and probe at any time.
type applications struct {
	registryName string
	discovery    *discovery.Discovery
	main         *health.State // of the application of the flags
	log          *slog.Logger

	running atomic.Pointer[[]*application]
}

// list returns the applications at present.
func (a *applications) list() []*application {
	if running := a.running.Load(); running != nil {
		return *running
	}
	return nil
}

// apply makes the running applications those of want: it takes out what is
// gone or registered otherwise, goes on with what is the same, and begins what
// is new.
func (a *applications) apply(want []Application) {
	var next, gone []*application
	for _, old := range a.list() {
		at := slices.IndexFunc(want, old.goesOnAs)
		if at < 0 {
			gone = append(gone, old)
			continue
		}
		old.replaceCheck(want[at])
		next = append(next, old)
		want = slices.Concat(want[:at], want[at+1:])
	}
	_ = endAll(context.Background(), gone) // its context does not end; what the registry said is logged
	for _, spec := range want {
		next = append(next, a.begin(spec))
	}
	a.running.Store(&next)
}

// begin runs an application that is not running yet.
func (a *applications) begin(spec Application) *application {
	warnLoopback(spec.App, a.registryName, a.log)
	app := &application{
		Service: newService(spec.App), spec: spec, state: &health.State{}, discovery: a.discovery, log: a.log,
	}
	if spec.main {
		app.state = a.main
	}
	if spec.Healthcheck.URL != "" {
		app.prober = health.New(health.Check(spec.Healthcheck))
	}
	app.task.begin(app.run)
	return app
}

// goesOnAs reports whether a is what spec wants, but for the numbers of its
// health check.
func (a *application) goesOnAs(spec Application) bool {
	if (a.prober == nil) != (spec.Healthcheck.URL == "") || a.spec.Child != spec.Child {
		return false
	}
	spec.Healthcheck = a.spec.Healthcheck
	return reflect.DeepEqual(a.spec, spec)
}

// replaceCheck goes on with the health check of spec.
func (a *application) replaceCheck(spec Application) {
	if a.prober != nil && a.prober.Check() != health.Check(spec.Healthcheck) {
		a.prober.Replace(health.Check(spec.Healthcheck))
	}
}

// stop deregisters all applications.
func (a *applications) stop(ctx context.Context) error {
	if a == nil {
		return nil
	}
	return endAll(ctx, a.list())
}

// endAll ends the applications side by side: each takes as long as its
// registry does.
func endAll(ctx context.Context, apps []*application) error {
	var (
		tasks sync.WaitGroup
		once  sync.Once
		err   error
	)
	for _, app := range apps {
		tasks.Go(func() {
			if failed := app.task.stop(ctx); failed != nil {
				once.Do(func() { err = fmt.Errorf("%s: %w", app.Service.Name, failed) })
			}
		})
	}
	tasks.Wait()
	return err
}

// probeMain looks at the application of the flags, now.
func (a *applications) probeMain(ctx context.Context) error {
	for _, app := range a.list() {
		if app.spec.main && app.prober != nil {
			return app.prober.Probe(ctx).Err
		}
	}
	return nil
}

// probe looks at every application that has a health check, now, and returns
// the first failure, in their order.
func (a *applications) probe(ctx context.Context) health.Result {
	apps := a.list()
	results := make([]health.Result, len(apps))
	var tasks sync.WaitGroup
	for i, app := range apps {
		if app.prober != nil {
			tasks.Go(func() { results[i] = app.prober.Probe(ctx) })
		}
	}
	tasks.Wait()
	for i, r := range results {
		if r.Err == nil {
			continue
		}
		if len(apps) > 1 {
			r.Err = fmt.Errorf("%s: %w", apps[i].Service.Name, r.Err)
		}
		return r
	}
	return health.Result{}
}
