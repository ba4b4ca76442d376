package consul

import (
	"context"
	"reflect"
	"sync"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/registry"
)

// WatchName implements [registry.NameWatcher] with one blocking query, or with
// those of [Registry.Watch] while many other services are watched. It never
// breaks: while the agent is away it is silent, and reports the zero Event once
// the agent is back. Its other events carry the service, or only name it.
func (r *Registry) WatchName(ctx context.Context, name string, changed func(registry.Event)) error {
	if err := checkName("service name", name); err != nil {
		return err
	}
	select {
	case r.watches <- struct{}{}:
	default:
		leave := r.shared.join(&listener{only: name, changed: changed})
		select {
		case r.watches <- struct{}{}: // somebody else's has ended
			leave()
		case <-ctx.Done():
			leave()
			return ctx.Err()
		}
	}
	defer func() { <-r.watches }()
	return r.watchAlone(ctx, name, changed)
}

// watchAlone watches a service with a query of its own.
func (r *Registry) watchAlone(ctx context.Context, name string, changed func(registry.Event)) error {
	var last []registry.Service
	ask := func(ctx context.Context, q *api.QueryOptions, fresh bool) (answer, error) {
		entries, meta, err := r.entries(ctx, name, q)
		if err != nil {
			return answer{}, err
		}
		if fresh {
			changed(registry.Event{})
		}
		// The index also moves for reasons that Get does not show.
		if services := r.convert(name, entries); fresh || !reflect.DeepEqual(services, last) {
			last = services
			changed(registry.Event{Name: name, Services: services})
		}
		return answer{meta.LastIndex, len(entries)}, nil
	}
	return poller{log: r.log, pulse: r.pulse, what: name, ask: ask}.run(ctx)
}

// Watch implements [registry.Registry]. It never breaks, as WatchName. There
// are two queries for all services and all callers: where a check changed, its
// service is reported by name for the caller to re-read; where the catalog
// changed, which does not show what it was, the zero Event. Both are silent in a
// registry where nodes are only renewed.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	leave := r.shared.join(&listener{changed: changed})
	<-ctx.Done()
	leave()
	return ctx.Err()
}

// queries is how many a watch of all services takes.
const queries = 2

// watchAll begins them; they run until ctx ends.
func (r *Registry) watchAll(ctx context.Context, work *sync.WaitGroup, tell func(note)) {
	w := watch{registry: r, tell: tell}
	work.Go(func() {
		_ = poller{log: r.log, pulse: r.pulse, what: "checks", ask: w.askChecks}.run(ctx) // ctx's error, as below
	})
	work.Go(func() {
		_ = poller{log: r.log, pulse: r.pulse, what: "services", ask: w.askServices}.run(ctx)
	})
}

// note is what a query has shown: that a service changed, with name "" that
// any may have, and fresh that changes may have been missed before.
type note struct {
	name  string
	fresh bool
}

// watch is the state of the two queries.
type watch struct {
	registry *Registry
	tell     func(note)

	checks map[string]check // by Consul node and check id; of askChecks alone
}

// check is what of a check matters: its output, for one, does not.
type check struct{ service, status string }

func (w *watch) askServices(ctx context.Context, q *api.QueryOptions, fresh bool) (answer, error) {
	all, meta, err := w.registry.client.Catalog().Services(q.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	if fresh || meta.LastIndex != q.WaitIndex {
		w.tell(note{fresh: fresh})
	}
	return answer{meta.LastIndex, len(all)}, nil
}

func (w *watch) askChecks(ctx context.Context, q *api.QueryOptions, fresh bool) (answer, error) {
	all, meta, err := w.registry.client.Health().State(api.HealthAny, q.WithContext(ctx))
	if err != nil {
		return answer{}, err
	}
	checks := make(map[string]check, len(all))
	for _, c := range all {
		if c != nil {
			checks[c.Node+"\x00"+c.CheckID] = check{service: c.ServiceName, status: c.Status}
		}
	}
	changed := services(w.checks, checks)
	w.checks = checks
	switch {
	case fresh:
		w.tell(note{fresh: true})
	case changed[""]: // a check of a whole Consul node has no service
		w.tell(note{})
	default:
		for consulName := range changed {
			w.tell(note{name: decodeName(consulName)})
		}
	}
	return answer{meta.LastIndex, len(all)}, nil
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
