package consul

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/registry"
)

// Get implements [registry.Registry]. A node counts while none of its checks,
// the Consul node's own included, is critical: the same as in go-micro and in
// Consul's DNS. A node without checks counts, one without a port or with an
// address that is none does not.
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	entries, _, err := r.entries(ctx, name, &api.QueryOptions{})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	services := r.convert(name, entries)
	if len(services) == 0 {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return services, nil
}

// List implements [registry.Registry]. Consul's own service is left out, and
// so are services of which nothing but expired registrations is left: Consul
// keeps those for a minute and more after their time to live.
func (r *Registry) List(ctx context.Context) ([]string, error) {
	services, _, err := r.client.Catalog().Services(query(ctx))
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	checks, _, err := r.client.Health().State(api.HealthCritical, query(ctx))
	if err != nil {
		return nil, fmt.Errorf("list failing checks: %w", err)
	}
	for consulName := range withExpired(checks) {
		if _, listed := services[consulName]; !listed {
			continue
		}
		entries, _, err := r.entries(ctx, decodeName(consulName), &api.QueryOptions{})
		if err != nil {
			return nil, fmt.Errorf("list services: %w", err)
		}
		if !slices.ContainsFunc(entries, func(e *api.ServiceEntry) bool { return !expired(e) }) {
			delete(services, consulName)
		}
	}
	return names(services), nil
}

// withExpired returns Consul's names of the services that have a node whose
// registration has expired.
func withExpired(checks api.HealthChecks) map[string]bool {
	found := map[string]bool{}
	for _, c := range checks {
		if c != nil && c.ServiceName != "" && expiredCheck(c) {
			found[c.ServiceName] = true
		}
	}
	return found
}

// names returns the sorted names of the services in a catalog.
func names(catalog map[string][]string) []string {
	list := make([]string, 0, len(catalog))
	for consulName := range catalog {
		if consulName != ownService {
			list = append(list, decodeName(consulName))
		}
	}
	slices.Sort(list)
	return list
}

// entries asks for the instances of a service, the failing ones included.
// Consul looks names up without regard to case: the others are left out.
func (r *Registry) entries(ctx context.Context, name string, q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta, error) {
	if err := checkName("service name", name); err != nil {
		return nil, nil, err
	}
	consulName := encodeName(name)
	all, meta, err := r.client.Health().Service(consulName, "", false, q.WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	entries := slices.DeleteFunc(all, func(e *api.ServiceEntry) bool {
		return e == nil || e.Service == nil || e.Node == nil || e.Service.Service != consulName
	})
	return entries, meta, nil
}

// convert makes of entries what [Registry.Get] answers: nothing when there
// are none. What was written last speaks for its version.
func (r *Registry) convert(name string, entries []*api.ServiceEntry) []registry.Service {
	services := []registry.Service{}
	entries = slices.DeleteFunc(slices.Clone(entries), expired)
	if len(entries) == 0 {
		return services
	}
	slices.SortStableFunc(entries, func(a, b *api.ServiceEntry) int {
		return cmp.Or(cmp.Compare(b.Service.ModifyIndex, a.Service.ModifyIndex), cmp.Compare(a.Node.Node, b.Node.Node))
	})
	ids := nodeIDs(name, entries)
	for _, e := range entries {
		if critical(e) {
			continue
		}
		told := decodeTags(e.Service.Tags)
		n := node(ids[e], e, told)
		if err := registry.CheckNode(n); err != nil {
			r.odd.Warn("registry: a node that cannot be reached is passed over", "service", fmt.Sprintf("%.200q", name), "node", fmt.Sprintf("%.200q", n.ID), "error", err)
			continue
		}
		i := slices.IndexFunc(services, func(s registry.Service) bool { return s.Version == told.version })
		if i < 0 {
			i = len(services)
			services = append(services, registry.Service{Name: name, Version: told.version, Metadata: told.service, Endpoints: told.endpoints})
		}
		services[i].Nodes = append(services[i].Nodes, n)
	}
	if len(services) == 0 {
		return []registry.Service{{Name: name}} // known, but nobody is well
	}
	registry.Sort(services)
	return services
}

func node(id string, e *api.ServiceEntry, told content) registry.Node {
	n := registry.Node{ID: id, Address: e.Service.Address, Port: e.Service.Port, Metadata: told.node}
	switch {
	case e.Service.SocketPath != "":
		n.Address, n.Port = registry.UnixPrefix+e.Service.SocketPath, 0
	case n.Address == "":
		n.Address = e.Node.Address
	}
	if !told.ours {
		n.Metadata = e.Service.Meta // another program's: all it says is here
	}
	return n
}

// nodeIDs gives every entry an id of its own. An ID is unique within one
// agent only, and by default the service's name: where several agents have
// the same, all but the first by the agents' names get theirs appended.
func nodeIDs(name string, entries []*api.ServiceEntry) map[*api.ServiceEntry]string {
	byAgent := slices.SortedStableFunc(slices.Values(entries), func(a, b *api.ServiceEntry) int {
		return cmp.Compare(a.Node.Node, b.Node.Node)
	})
	ids := make(map[*api.ServiceEntry]string, len(entries))
	taken := make(map[string]bool, len(entries))
	for _, e := range byAgent {
		id := decodeID(name, e.Service.ID)
		if taken[id] {
			id += "@" + e.Node.Node
		}
		taken[id], ids[e] = true, id
	}
	return ids
}

// expired reports whether a node's time to live has run out, or was never
// begun: Consul keeps such a node for a while, and it is as good as gone.
func expired(e *api.ServiceEntry) bool {
	return slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
		return c != nil && c.ServiceID == e.Service.ID && expiredCheck(c)
	})
}

func expiredCheck(c *api.HealthCheck) bool {
	return c.Type == "ttl" && c.Status == api.HealthCritical
}

func critical(e *api.ServiceEntry) bool {
	return slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
		return c != nil && c.Status != api.HealthPassing && c.Status != api.HealthWarning
	})
}
