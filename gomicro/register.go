package gomicro

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	micro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/registry"
)

// registration is a node that was registered through this adapter.
type registration struct {
	service registry.Service // with that node alone
	print   string           // all that was registered, its life included
	expiry  *time.Timer      // nil when it stays until it is removed
}

func (g *registration) stop() {
	if g != nil && g.expiry != nil {
		g.expiry.Stop()
	}
}

// Register implements [registry.Registry]. The engine is told node by node. One that
// changed is taken out first: go-micro's registries compare with what they
// wrote last, each in its own way, and leave some changes unwritten. Its life is
// watched here, too: some engines know none, and go-micro keeps etcd's leases
// alive for as long as the process runs.
func (r *RegistryAdapter) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if s.Name == "" {
		return errors.New("register: the service has no name")
	}
	_, err := do(ctx, r.writes, "register "+s.Name, func() (none struct{}, err error) {
		defer r.lock(s.Name)()
		if err := ctx.Err(); err != nil {
			return none, err // nobody waits for it, and what came later has been done
		}
		return none, r.register(ctx, s, ttl)
	}, nil)
	if err == nil {
		r.hint(s.Name)
	}
	return err
}

// register is Register with the service's lock held.
func (r *RegistryAdapter) register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	changed := map[string]bool{}
	for _, n := range s.Nodes {
		if n.ID == "" {
			return fmt.Errorf("register %s: a node has no id", s.Name)
		}
		if other := r.taken(s.Name, n.ID); other != "" {
			return fmt.Errorf("register %s: the node id %q is that of a node of %s, and go-micro's %s registry would replace it", s.Name, n.ID, other, r.reg.String())
		}
		changed[n.ID] = r.registered(s.Name, n.ID) == nil || r.registered(s.Name, n.ID).print != printOf(s, n, ttl)
	}
	if err := r.clear(s, changed); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	for _, n := range s.Nodes {
		if err := r.reg.Register(toMicro(s, n), micro.RegisterTTL(ttl)); err != nil {
			return fmt.Errorf("register %s: %w", s.Name, err)
		}
		r.remember(s, n, ttl)
	}
	if anyOf(changed) {
		r.settle(ctx, s.Name, func(now []registry.Service) bool { return shows(now, s) })
	}
	return nil
}

// anyOf reports whether one of them is.
func anyOf(changed map[string]bool) bool {
	for _, c := range changed {
		if c {
			return true
		}
	}
	return false
}

// shows reports whether all nodes of s are there as they are in s.
func shows(now []registry.Service, s registry.Service) bool {
	for _, n := range s.Nodes {
		at, shown, ok := find(now, n.ID)
		if !ok || at.Version != s.Version || shown.HostPort() != n.HostPort() {
			return false
		}
	}
	return true
}

// clear takes out those of the changed nodes that the engine holds, under
// whatever version.
func (r *RegistryAdapter) clear(s registry.Service, changed map[string]bool) error {
	if !anyOf(changed) {
		return nil
	}
	there, err := r.ask(s.Name)
	if err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if !changed[n.ID] {
			continue
		}
		if at, node, ok := find(there, n.ID); ok {
			if err := r.reg.Deregister(toMicro(at, node)); err != nil {
				return err
			}
		} else if g := r.registered(s.Name, n.ID); g != nil {
			// It is not shown: it may have failed a check.
			_ = r.reg.Deregister(toMicro(g.service, g.service.Nodes[0])) // it may have gone by itself
		}
	}
	return nil
}

// printOf is all that Register says of a node.
func printOf(s registry.Service, n registry.Node, ttl time.Duration) string {
	s.Nodes = []registry.Node{n}
	text, err := json.Marshal(registry.Normalize(s))
	if err != nil { // strings and maps of them can be marshalled
		return ""
	}
	return ttl.String() + string(text)
}

func (r *RegistryAdapter) registered(name, id string) *registration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.own[key{name, id}]
}

// taken returns the other service that has a node with the id, where that
// matters.
func (r *RegistryAdapter) taken(name, id string) string {
	if !r.traits.oneID {
		return ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.own {
		if k.id == id && k.name != name {
			return k.name
		}
	}
	return ""
}

// remember notes a registration and starts its clock.
func (r *RegistryAdapter) remember(s registry.Service, n registry.Node, ttl time.Duration) {
	print := printOf(s, n, ttl)
	s.Nodes = []registry.Node{n}
	g := &registration{service: s, print: print}
	k := key{s.Name, n.ID}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.own[k].stop()
	if r.closed {
		return
	}
	r.own[k] = g
	if ttl > 0 {
		g.expiry = time.AfterFunc(ttl, func() { r.expire(k, g) })
	}
}

// forget drops a registration; g, when it is not nil, only if it is that one.
func (r *RegistryAdapter) forget(k key, g *registration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g != nil && r.own[k] != g {
		return false
	}
	r.own[k].stop()
	delete(r.own, k)
	return true
}

// expiryTime bounds how long the end of a registration may take.
const expiryTime = 10 * time.Second

// expire takes out a registration that was not renewed.
func (r *RegistryAdapter) expire(k key, g *registration) {
	ctx, cancel := context.WithTimeout(context.Background(), expiryTime)
	defer cancel()
	_, err := do(ctx, r.writes, "expire "+k.name, func() (none struct{}, err error) {
		defer r.lock(k.name)()
		if !r.forget(k, g) {
			return none, nil // renewed, removed, or the adapter is closed
		}
		err = r.reg.Deregister(toMicro(g.service, g.service.Nodes[0]))
		r.hint(k.name)
		return none, err
	}, nil)
	if err != nil {
		r.odd.warn(r.options.Log, "an expired registration may have been gone already", "service", k.name, "node", k.id, "error", err)
	}
}

// Deregister implements [registry.Registry]. Since nodes are matched by name and id,
// and go-micro's Consul code removes by id whatever the service, the engine is
// asked first.
func (r *RegistryAdapter) Deregister(ctx context.Context, s registry.Service) error {
	_, err := do(ctx, r.writes, "deregister "+s.Name, func() (none struct{}, err error) {
		defer r.lock(s.Name)()
		if err := ctx.Err(); err != nil {
			return none, err
		}
		return none, r.deregister(ctx, s)
	}, nil)
	if err == nil {
		r.hint(s.Name)
	}
	return err
}

// deregister is Deregister with the service's lock held.
func (r *RegistryAdapter) deregister(ctx context.Context, s registry.Service) error {
	if len(s.Nodes) == 0 {
		return nil
	}
	there, asked := r.ask(s.Name)
	for _, n := range s.Nodes {
		k := key{s.Name, n.ID}
		at, node, shown := find(there, n.ID)
		own := r.registered(s.Name, n.ID)
		switch {
		case shown:
			if err := r.reg.Deregister(toMicro(at, node)); err != nil {
				return fmt.Errorf("deregister %s: %w", s.Name, err)
			}
		case own != nil: // not shown: expired, failing, or the engine did not answer
			if err := r.reg.Deregister(toMicro(own.service, own.service.Nodes[0])); err != nil && asked != nil {
				return fmt.Errorf("deregister %s: %w", s.Name, err)
			}
		case asked != nil:
			return fmt.Errorf("deregister %s: %w", s.Name, asked)
		}
		r.forget(k, nil)
	}
	r.settle(ctx, s.Name, func(now []registry.Service) bool {
		for _, n := range s.Nodes {
			if _, _, still := find(now, n.ID); still {
				return false
			}
		}
		return true
	})
	return nil
}
