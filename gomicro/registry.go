package gomicro

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	micro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/registry"
)

// RegistryAdapter is a registry of go-micro's as one of ours. Its methods return when
// their context ends, also while go-micro does not.
type RegistryAdapter struct {
	reg     micro.Registry
	options Options
	reads   calls
	writes  calls // apart, so that changes that are stuck leave room for questions
	traits  traits
	odd     quiet

	seed maphash.Seed
	// locks hold the changes of one service in their order, also those that
	// nobody waits for any more.
	locks [64]sync.Mutex

	mu       sync.Mutex
	closed   bool
	own      map[key]*registration
	last     map[string][]registry.Service // with traits.lossy: what was answered last
	watchers map[*hints]bool
}

// key is a node.
type key struct{ name, id string }

// traits are what go-micro's own registries are known for.
type traits struct {
	lossy   bool // an answer may lack what did not come in time
	batches bool // its watch tells the first of several events alone
	blind   bool // its watch must not be used
	oneID   bool // two services cannot have nodes with the same id
}

// traitsOf knows go-micro's registries by their names.
func traitsOf(name string) traits {
	switch name {
	case "nats", "mdns":
		return traits{lossy: true}
	case "etcd":
		return traits{batches: true}
	case "consul":
		// It needs a name, and panics in a goroutine of its own, where nobody can
		// recover, on a service with a tag "t" or "e".
		return traits{blind: true, oneID: true}
	}
	return traits{}
}

// NewRegistry adapts r, which is used as it is, but for go-micro's cache around
// another registry: that one is used instead. Close does not close r, for
// which go-micro has no way.
func NewRegistry(r micro.Registry, o Options) *RegistryAdapter {
	r = behindCache(r)
	return &RegistryAdapter{
		reg: r, options: o.withDefaults(), reads: newCalls(), writes: newCalls(), traits: traitsOf(r.String()), seed: maphash.MakeSeed(),
		own: map[key]*registration{}, last: map[string][]registry.Service{}, watchers: map[*hints]bool{},
	}
}

// lock orders the changes of a service.
func (r *RegistryAdapter) lock(name string) (unlock func()) {
	l := &r.locks[maphash.String(r.seed, name)%uint64(len(r.locks))]
	l.Lock()
	return l.Unlock
}

// Get implements [registry.Registry].
func (r *RegistryAdapter) Get(ctx context.Context, name string) ([]registry.Service, error) {
	services, err := do(ctx, r.reads, "get "+name, func() ([]registry.Service, error) { return r.get(name) }, nil)
	if err != nil {
		return nil, err
	}
	if services == nil {
		return nil, registry.ErrNotFound
	}
	return services, nil
}

// get asks go-micro; nil means that there is nothing. A node that one of the
// engines that have no memory has not told of is asked for again before it is
// taken to be gone.
func (r *RegistryAdapter) get(name string) ([]registry.Service, error) {
	answer, err := r.ask(name)
	if err != nil || !r.traits.lossy {
		return answer, err
	}
	r.mu.Lock()
	before := r.last[name]
	r.mu.Unlock()
	if lacks(answer, before) {
		again, err := r.ask(name)
		if err != nil {
			return nil, err
		}
		answer = union(answer, again)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if answer == nil {
		delete(r.last, name)
	} else {
		r.last[name] = answer
	}
	return answer, nil
}

// ask is one question to go-micro.
func (r *RegistryAdapter) ask(name string) ([]registry.Service, error) {
	services, err := r.reg.GetService(name)
	if errors.Is(err, micro.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return fromMicro(name, services, func(node, why string) {
		r.odd.warn(r.options.Log, "a node is passed over", "service", name, "node", node, "because", why)
	}), nil
}

// lacks reports whether a node that was there before is not in now.
func lacks(now, before []registry.Service) bool {
	for _, s := range before {
		for _, n := range s.Nodes {
			if _, _, ok := find(now, n.ID); !ok {
				return true
			}
		}
	}
	return false
}

// union is what either of two answers holds; of a node, the second one counts.
func union(a, b []registry.Service) []registry.Service {
	var out []registry.Service
	at := map[string]int{}
	add := func(s registry.Service, nodes []registry.Node) {
		i, ok := at[s.Version]
		if !ok {
			i = len(out)
			at[s.Version] = i
			s.Nodes = nil
			out = append(out, s)
		}
		out[i].Nodes = append(out[i].Nodes, nodes...)
	}
	for _, s := range b {
		add(s, s.Nodes)
	}
	for _, s := range a {
		add(s, slices.DeleteFunc(slices.Clone(s.Nodes), func(n registry.Node) bool {
			_, _, twice := find(b, n.ID)
			return twice
		}))
	}
	registry.Sort(out)
	return usable(out)
}

// List implements [registry.Registry].
func (r *RegistryAdapter) List(ctx context.Context) ([]string, error) {
	services, err := do(ctx, r.reads, "list", func() ([]*micro.Service, error) { return r.reg.ListServices() }, nil)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, s := range services {
		// Some engines list names alone; the memory registry lists what has
		// expired, too.
		if s != nil && s.Name != "" && (s.Nodes == nil || len(s.Nodes) > 0) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Ping implements [registry.Pinger]: it asks for a service that nobody has.
func (r *RegistryAdapter) Ping(ctx context.Context) error {
	_, err := r.Get(ctx, "micro.sidecar.ping")
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("go-micro's %s registry: %w", r.reg.String(), err)
}

// Close ends the registrations' clocks; what was registered stays.
func (r *RegistryAdapter) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, g := range r.own {
		g.stop()
	}
	clear(r.own)
	return nil
}

// settleTime bounds how long a change may take to be seen.
const settleTime = 2 * time.Second

// settle waits until the engine shows what was changed, as the port promises.
func (r *RegistryAdapter) settle(ctx context.Context, name string, shown func([]registry.Service) bool) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for wait := 2 * time.Millisecond; ; wait *= 2 {
		services, err := r.ask(name)
		if err != nil || shown(services) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
