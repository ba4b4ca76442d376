package consul

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/registry"
)

// Register implements [registry.Registry]. A node that the agent has already,
// just so, is renewed by passing its check and not written again. The agent
// tells the servers in the background: Register waits until they know.
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if err := checkService(s); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	written, err := r.write(ctx, s, ttl)
	if err == nil {
		err = r.await(ctx, s.Name, func(entries []*api.ServiceEntry) bool { return visible(entries, written) })
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	return nil
}

// Deregister implements [registry.Registry]. It also waits until the servers
// know.
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	if err := checkService(s); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	before, _, err := r.entries(ctx, s.Name, &api.QueryOptions{})
	var removed []string
	if err == nil {
		removed, err = r.remove(ctx, s)
	}
	if err == nil && len(removed) > 0 {
		err = r.await(ctx, s.Name, func(entries []*api.ServiceEntry) bool { return absent(before, entries, removed) })
	}
	if err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	return nil
}

func checkService(s registry.Service) error {
	if err := checkName("service name", s.Name); err != nil {
		return err
	}
	for i, n := range s.Nodes {
		if err := checkName(fmt.Sprintf("id of node %d", i), n.ID); err != nil {
			return err
		}
	}
	return nil
}

// write brings the agent to have every node of s and returns what it has.
func (r *Registry) write(ctx context.Context, s registry.Service, ttl time.Duration) ([]*api.AgentServiceRegistration, error) {
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	have, err := r.agentServices(ctx, s)
	if err != nil {
		return nil, err
	}
	written := make([]*api.AgentServiceRegistration, 0, len(s.Nodes))
	for _, n := range s.Nodes {
		want, err := describe(s, n, ttl)
		if err != nil {
			return nil, fmt.Errorf("node %s: %w", n.ID, err)
		}
		own := have.find(s.Name, n.ID)
		switch {
		case own != nil:
			want.ID = own.ID
		case !addressable(n.ID) || have.taken(n.ID):
			want.ID = encodeID(s.Name, n.ID)
		}
		if err := r.put(ctx, own, want, ttl); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.ID, err)
		}
		have[want.ID] = &api.AgentService{ID: want.ID, Service: want.Name} // for the next of s
		written = append(written, want)
	}
	return written, nil
}

// put registers or renews one node.
func (r *Registry) put(ctx context.Context, own *api.AgentService, want *api.AgentServiceRegistration, ttl time.Duration) error {
	if own != nil && equal(own, want) {
		if ttl <= 0 {
			return nil
		}
		err := r.pass(ctx, want.ID)
		if err == nil || !refused(err) {
			return err
		}
		// The check is gone: begin anew.
	}
	opts := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx)
	if err := r.client.Agent().ServiceRegisterOpts(want, opts); err != nil {
		return err
	}
	if ttl <= 0 {
		return nil
	}
	return r.pass(ctx, want.ID)
}

func (r *Registry) pass(ctx context.Context, consulID string) error {
	return r.client.Agent().UpdateTTLOpts("service:"+consulID, "", api.HealthPassing, query(ctx))
}

func (r *Registry) remove(ctx context.Context, s registry.Service) ([]string, error) {
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	have, err := r.agentServices(ctx, s)
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, n := range s.Nodes {
		for own := have.find(s.Name, n.ID); own != nil; own = have.find(s.Name, n.ID) {
			err := r.client.Agent().ServiceDeregisterOpts(own.ID, query(ctx))
			if status, answered := statusOf(err); err != nil && (!answered || status != http.StatusNotFound) {
				return nil, fmt.Errorf("node %s: %w", n.ID, err)
			}
			removed = append(removed, own.ID)
			delete(have, own.ID)
		}
	}
	return removed, nil
}

func (r *Registry) lock(ctx context.Context) (unlock func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case r.writing <- struct{}{}:
		return func() { <-r.writing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// describe returns the registration of a node under its plain id.
func describe(s registry.Service, n registry.Node, ttl time.Duration) (*api.AgentServiceRegistration, error) {
	tags, err := encodeTags(s, n)
	if err != nil {
		return nil, err
	}
	want := &api.AgentServiceRegistration{
		ID: n.ID, Name: encodeName(s.Name), Address: n.Address, Port: n.Port,
		Tags: tags, Meta: encodeMeta(n.Metadata, ttl),
	}
	if path, ok := strings.CutPrefix(n.Address, registry.UnixPrefix); ok {
		want.Address, want.SocketPath = "", path
	}
	if ttl > 0 {
		want.Check = &api.AgentServiceCheck{
			TTL:                            ttl.String(),
			DeregisterCriticalServiceAfter: forgetAfter(ttl).String(),
			Status:                         api.HealthPassing, // from the first moment
		}
	}
	return want, nil
}

// forgetAfter is go-micro's rule: Consul takes no less than a minute.
func forgetAfter(ttl time.Duration) time.Duration {
	return max(ttl, time.Minute) + 5*time.Second
}

// agentServices is what an agent holds, by Consul's service ID.
type agentServices map[string]*api.AgentService

// agentServices asks the agent for what could be, or be in the way of, the
// nodes of s.
func (r *Registry) agentServices(ctx context.Context, s registry.Service) (agentServices, error) {
	have, err := r.client.Agent().ServicesWithFilterOpts(filter(s), query(ctx))
	if err != nil {
		return nil, withoutQuery(err)
	}
	if have == nil {
		have = make(map[string]*api.AgentService)
	}
	maps.DeleteFunc(have, func(_ string, a *api.AgentService) bool { return a == nil })
	return have, nil
}

// withoutQuery shortens the URL in err: the filter in it is longer than all
// that people want to know.
func withoutQuery(err error) error {
	if asked, ok := errors.AsType[*url.Error](err); ok {
		asked.URL, _, _ = strings.Cut(asked.URL, "?")
	}
	return err
}

// maxFilter bounds a filter, in bytes: it is a part of the head of a request.
const maxFilter = 16 << 10

// filter selects the plain ids, in any case, and the encoded ones; where that
// is too long to be asked, it is empty, and the agent sends all it has.
func filter(s registry.Service) string {
	choices, size := make([]string, 0, 2*len(s.Nodes)), 0
	for _, n := range s.Nodes {
		plain, encoded := quoteRegexp(n.ID), encodeID(s.Name, n.ID)
		if size += len(plain) + len(encoded) + 2; size > maxFilter {
			return ""
		}
		choices = append(choices, plain, encoded)
	}
	return "ID matches `(?i)^(" + strings.Join(choices, "|") + ")$`"
}

// quoteRegexp writes every character as its number: there is then nothing
// that the filter's own syntax could take for something else.
func quoteRegexp(text string) string {
	var quoted strings.Builder
	for _, r := range text {
		fmt.Fprintf(&quoted, `\x{%x}`, r)
	}
	return quoted.String()
}

// find returns the service that is the node, nil if there is none.
func (a agentServices) find(name, id string) *api.AgentService {
	consulName := encodeName(name)
	for _, consulID := range []string{id, encodeID(name, id)} {
		if own := a[consulID]; own != nil && own.Service == consulName && decodeID(name, own.ID) == id {
			return own
		}
	}
	return nil
}

// taken reports whether another service has the ID, as Consul compares them.
func (a agentServices) taken(consulID string) bool {
	for other := range a {
		if strings.EqualFold(other, consulID) {
			return true
		}
	}
	return false
}

func equal(have *api.AgentService, want *api.AgentServiceRegistration) bool {
	return have.ID == want.ID && have.Service == want.Name && have.Address == want.Address && have.Port == want.Port && have.SocketPath == want.SocketPath &&
		slices.Equal(have.Tags, want.Tags) && maps.Equal(have.Meta, want.Meta)
}
