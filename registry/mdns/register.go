package mdns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"github.com/micro/sidecar/registry"
)

const (
	// announcements is how often, a second apart, a registration is announced:
	// RFC 6762 section 8.3 asks for two.
	announcements = 3
	// echoTime is how long our own words may still come back to us.
	echoTime = 2 * time.Second
	// shortTTL is a time to live that others may not ask again within.
	shortTTL = 30 * time.Second
)

// registration is a node that is registered here.
type registration struct {
	service  registry.Service // with this one node
	deadline time.Time        // zero: stays until removed
	announce int              // how often still
}

// left is the time to live of its records.
func (o *registration) left(now time.Time) time.Duration {
	if o.deadline.IsZero() {
		return maxTTL
	}
	return min(o.deadline.Sub(now), maxTTL)
}

// Register implements [registry.Registry]. go-micro's own code finds nodes
// whose address is an IP address.
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if err := r.await(ctx); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	if s.Name == "" {
		return errors.New("register: the service has no name")
	}
	for _, n := range s.Nodes { // all or nothing
		if n.ID == "" {
			return fmt.Errorf("register %s: a node has no id", s.Name)
		}
		rr, err := records(s, n, r.domain, maxTTL)
		if err == nil {
			_, err = answerTo(0, nil, append(rr, &dns.PTR{Hdr: *rr[0].Header(), Ptr: rr[0].Header().Name}))
		}
		if err != nil {
			return fmt.Errorf("register %s: node %s does not fit into a message: %w", s.Name, n.ID, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, n := range s.Nodes {
		name := instance(s.Name, n.ID, r.domain)
		o := &registration{service: single(s, n)}
		if ttl > 0 {
			o.deadline = now.Add(ttl)
		}
		before := r.own[name]
		r.own[name] = o
		r.cache.index(s.Name, name)
		switch {
		case before == nil || !equal(before.service, o.service):
			o.announce = announcements - 1
			r.announce(o, o.left(now))
		case before.announce > 0:
			o.announce = before.announce
		case ttl > 0 && ttl < shortTTL:
			r.announce(o, o.left(now))
		}
	}
	r.show(s.Name)
	return nil
}

// Deregister implements [registry.Registry]. What is registered elsewhere only
// its own registry can remove.
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	if err := r.await(ctx); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range s.Nodes {
		r.remove(instance(s.Name, n.ID, r.domain))
	}
	r.show(s.Name)
	return nil
}

// remove takes a node's leave, if it is registered here. r.mu is held.
func (r *Registry) remove(name string) {
	o := r.own[name]
	if o == nil {
		return
	}
	delete(r.own, name)
	r.left[name] = time.Now().Add(echoTime)
	r.announce(o, 0)
	if r.cache.nodes[name] == nil {
		r.cache.unindex(o.service.Name, name)
	}
}

// announce tells the network of a node; with ttl 0 that it is gone.
func (r *Registry) announce(o *registration, ttl time.Duration) {
	rr, err := records(o.service, o.service.Nodes[0], r.domain, ttl)
	if err != nil {
		return // Register has tried
	}
	packet, err := answerTo(0, nil, rr)
	if err != nil {
		return
	}
	for _, s := range r.sockets {
		s.send(packet, true)
	}
}

// show makes the picture of a service: what is registered here, and what was
// heard. r.mu is held.
func (r *Registry) show(service string) {
	versions := []registry.Service{}
	ids := map[string]bool{}
	add := func(s registry.Service) {
		n := s.Nodes[0]
		if ids[n.ID] {
			return
		}
		ids[n.ID] = true
		for i := range versions {
			if versions[i].Version == s.Version {
				versions[i].Nodes = append(versions[i].Nodes, n)
				return
			}
		}
		s.Nodes = []registry.Node{n}
		versions = append(versions, s)
	}
	for _, name := range r.cache.sorted(service) {
		if o := r.own[name]; o != nil {
			add(o.service)
		}
	}
	for _, name := range r.cache.sorted(service) {
		if n := r.cache.nodes[name]; n != nil {
			add(n.service)
		}
	}
	registry.Sort(versions)
	r.Set(service, versions)
}
