package consul

import (
	"context"
	"reflect"
	"sync"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/registry"
)

// WatchName implements [registry.NameWatcher] with one blocking query. It
// never breaks: while the agent is away it is silent, and reports the zero
// Event once the agent is back. Its other events carry the service.
func (r *Registry) WatchName(ctx context.Context, name string, changed func(registry.Event)) error {
	if err := checkName("service name", name); err != nil {
		return err
	}
	var last []registry.Service
	ask := func(ctx context.Context, q *api.QueryOptions, fresh bool) (*api.QueryMeta, error) {
		entries, meta, err := r.entries(ctx, name, q)
		if err != nil {
			return nil, err
		}
		if fresh {
			changed(registry.Event{})
		}
		// The index also moves for reasons that Get does not show.
		if services := convert(name, entries); fresh || !reflect.DeepEqual(services, last) {
			last = services
			changed(registry.Event{Name: name, Services: services})
		}
		return meta, nil
	}
	return poller{log: r.log, pulse: r.pulse, what: name, ask: ask}.run(ctx)
}

// Watch implements [registry.Registry]. It never breaks, as WatchName. A query
// for each service would tell exactly what changed, but an agent takes 200
// connections from one machine and no more. So there are two for all services:
// where a check changed, its service is reported by name for the caller to
// re-read; where the catalog changed, which does not show what it was, the
// zero Event. Both are silent in a registry where nodes are only renewed.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := watch{registry: r, changed: changed}
	var queries sync.WaitGroup
	queries.Go(func() {
		_ = poller{log: r.log, pulse: r.pulse, what: "checks", ask: w.askChecks}.run(ctx) // ctx's error, as below
	})
	err := poller{log: r.log, pulse: r.pulse, what: "services", ask: w.askServices}.run(ctx)
	queries.Wait()
	return err
}

// watch is the state of one Watch.
type watch struct {
	registry *Registry

	mu      sync.Mutex // held over changed: one call at a time
	changed func(registry.Event)

	checks map[string]check // by Consul node and check id; of askChecks alone
}

// check is what of a check matters: its output, for one, does not.
type check struct{ service, status string }

func (w *watch) askServices(ctx context.Context, q *api.QueryOptions, fresh bool) (*api.QueryMeta, error) {
	_, meta, err := w.registry.client.Catalog().Services(q.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if fresh || meta.LastIndex != q.WaitIndex {
		w.report("")
	}
	return meta, nil
}

func (w *watch) askChecks(ctx context.Context, q *api.QueryOptions, fresh bool) (*api.QueryMeta, error) {
	all, meta, err := w.registry.client.Health().State(api.HealthAny, q.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	checks := make(map[string]check, len(all))
	for _, c := range all {
		if c != nil {
			checks[c.Node+"\x00"+c.CheckID] = check{service: c.ServiceName, status: c.Status}
		}
	}
	changed := services(w.checks, checks)
	w.checks = checks
	if fresh || changed[""] { // a check of a whole Consul node has no service
		w.report("")
		return meta, nil
	}
	for consulName := range changed {
		w.report(decodeName(consulName))
	}
	return meta, nil
}

func (w *watch) report(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed(registry.Event{Name: name})
}

// services returns the services, by Consul name, whose checks are not the
// same before and after.
func services(before, after map[string]check) map[string]bool {
	changed := make(map[string]bool)
	for id, c := range before {
		if after[id] != c {
			changed[c.service] = true
		}
	}
	for id, c := range after {
		if before[id] != c {
			changed[c.service] = true
		}
	}
	return changed
}
