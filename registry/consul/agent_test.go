package consul

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

func greeter(name, id string, port int) registry.Service {
	return registry.Service{Name: name, Version: "1.0.0", Nodes: []registry.Node{{ID: id, Address: "127.0.0.1", Port: port}}}
}

func register(t *testing.T, r *Registry, s registry.Service, ttl time.Duration) {
	t.Helper()
	if err := r.Register(t.Context(), s, ttl); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what comes from elsewhere and gives no sign.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestForeignServices(t *testing.T) {
	s := testserver.Consul(t)
	r := open(t, s)
	agent := r.client.Agent()
	tags := []string{"t", "e", "v", "s", "traefik.enable=true", "", "edge"}
	for _, service := range []*api.AgentServiceRegistration{
		{Name: "web", ID: "no-check", Address: "10.0.0.1", Port: 80, Tags: tags, Meta: map[string]string{"zone": "a"}},
		{Name: "web", ID: "no-address", Port: 81},
		{Name: "web", ID: "failing", Port: 82, Check: &api.AgentServiceCheck{TTL: "1h"}}, // critical until it is passed
		{Name: "web", ID: "warning", Port: 83, Check: &api.AgentServiceCheck{TTL: "1h", Status: api.HealthWarning}},
		{Name: "web", ID: "no-port"},
		{Name: "sick", ID: "sick", Port: 84, Check: &api.AgentServiceCheck{TCP: "127.0.0.1:1", Interval: "1h", Status: api.HealthCritical}},
		{Name: "gone", ID: "gone", Port: 85, Check: &api.AgentServiceCheck{TTL: "1h"}}, // as one that has expired
	} {
		if err := agent.ServiceRegister(service); err != nil {
			t.Fatal(err)
		}
	}
	want := registry.Normalize(registry.Service{Name: "web", Nodes: []registry.Node{
		{ID: "no-address", Address: "127.0.0.1", Port: 81},
		{ID: "no-check", Address: "10.0.0.1", Port: 80, Metadata: map[string]string{"zone": "a"}},
		{ID: "warning", Address: "127.0.0.1", Port: 83},
	}})
	var have []registry.Service
	eventually(t, "the services to reach the catalog", func() bool {
		have, _ = r.Get(t.Context(), "web")
		_, err := r.Get(t.Context(), "sick")
		return err == nil && len(have) == 1 && len(have[0].Nodes) == 3
	})
	if have := registry.Normalize(have[0]); !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	if have, err := r.Get(t.Context(), "sick"); err != nil || len(have) != 1 || len(have[0].Nodes) != 0 {
		t.Errorf("a known service without a usable node: %+v, %v", have, err)
	}
	if have, err := r.Get(t.Context(), "gone"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a service that has expired: %+v, %v", have, err)
	}
	if names, err := r.List(t.Context()); err != nil || !reflect.DeepEqual(names, []string{"sick", "web"}) {
		t.Errorf("List: %q, %v", names, err)
	}
}

func TestRenewalDoesNotRewrite(t *testing.T) {
	r := open(t, testserver.Consul(t))
	index := func() uint64 {
		entries, _, err := r.entries(t.Context(), "greeter", &api.QueryOptions{})
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		return entries[0].Service.ModifyIndex
	}
	service := greeter("greeter", "n", 1)
	register(t, r, service, time.Minute)
	first := index()
	register(t, r, service, time.Minute)
	if index() != first {
		t.Error("a renewal wrote the service again")
	}
	if err := r.client.Agent().CheckDeregister("service:n"); err != nil { // the agent forgot the check
		t.Fatal(err)
	}
	register(t, r, service, time.Minute)
	if _, err := r.client.Agent().Checks(); err != nil {
		t.Fatal(err)
	}
	if err := r.pass(t.Context(), "n"); err != nil {
		t.Errorf("the check was not registered again: %v", err)
	}
	if err := r.client.Agent().ServiceDeregister("n"); err != nil { // it forgot all of it
		t.Fatal(err)
	}
	register(t, r, service, time.Minute)
	index()
	register(t, r, service, 2*time.Minute)
	if index() == first {
		t.Error("a new time to live was not written")
	}
}

func TestConflictingIDs(t *testing.T) {
	s := testserver.Consul(t)
	r, other := open(t, s), open(t, s)
	if err := r.client.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "foreign", ID: "n", Port: 7}); err != nil {
		t.Fatal(err)
	}
	register(t, r, greeter("one", "n", 1), time.Minute)
	register(t, other, greeter("two", "N", 2), time.Minute)
	register(t, r, greeter("two", "N", 2), time.Minute) // the other's, renewed
	for name, port := range map[string]int{"foreign": 7, "one": 1, "two": 2} {
		have, err := r.Get(t.Context(), name)
		if err != nil || len(have) != 1 || len(have[0].Nodes) != 1 || have[0].Nodes[0].Port != port {
			t.Errorf("%s: %+v, %v", name, have, err)
		}
	}
	if err := other.Deregister(t.Context(), greeter("one", "n", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(t.Context(), "one"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("one: %v", err)
	}
	if err := r.Deregister(t.Context(), greeter("three", "n", 1)); err != nil {
		t.Fatal(err)
	}
	if have, err := r.Get(t.Context(), "foreign"); err != nil || have[0].Nodes[0].ID != "n" {
		t.Errorf("foreign: %+v, %v", have, err)
	}
}

// TestRestart: the agent dies, comes back empty and with lower indexes, and
// every watch goes on by itself.
func TestRestart(t *testing.T) {
	s := testserver.Consul(t)
	r := open(t, s)
	service := greeter("greeter", "n", 1)
	for i := range 20 { // raise the index
		register(t, r, greeter("greeter", "n", 100+i), time.Minute)
	}
	all, one := make(chan registry.Event, 1000), make(chan registry.Event, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- r.Watch(ctx, func(e registry.Event) { all <- e }) }()
	go func() { ended <- r.WatchName(ctx, "greeter", func(e registry.Event) { one <- e }) }()
	next := func(events chan registry.Event, what string, wanted func(registry.Event) bool) {
		t.Helper()
		deadline := time.After(30 * time.Second)
		for {
			select {
			case e := <-events:
				if wanted(e) {
					return
				}
			case <-deadline:
				t.Fatalf("no event of %s", what)
			}
		}
	}
	zero := func(e registry.Event) bool { return e.Name == "" }
	drain := func(events chan registry.Event) {
		for len(events) > 0 {
			<-events
		}
	}
	next(all, "a live watch", zero)
	next(one, "the node", func(e registry.Event) bool { return len(e.Services) == 1 })

	s.Stop()
	if err := r.Ping(t.Context()); err == nil {
		t.Error("Ping of a stopped agent succeeded")
	}
	if _, err := r.Get(t.Context(), "greeter"); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get from a stopped agent: %v", err)
	}
	drain(all)
	drain(one)
	s.Restart()
	next(all, "the agent's return", zero)
	next(one, "the agent's return", zero)
	next(one, "the loss of the node", func(e registry.Event) bool { return e.Name == "greeter" && e.Services != nil && len(e.Services) == 0 })
	drain(all)
	register(t, r, service, time.Minute)
	next(one, "the node's return", func(e registry.Event) bool { return len(e.Services) == 1 && len(e.Services[0].Nodes) == 1 })
	next(all, "the node's return", func(e registry.Event) bool { return e.Name == "" || e.Name == "greeter" })

	s.Stop() // and a watch ends at once while it is broken
	cancel()
	for range 2 {
		select {
		case err := <-ended:
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a watch ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("a watch outlives its context")
		}
	}
}

// TestNonsense: an agent that answers nonsense gets an error, not a crash, an
// endless read or a busy loop.
func TestNonsense(t *testing.T) {
	asked := make(chan struct{}, 100_000)
	for name, body := range map[string]string{
		"not JSON": "<html>", "null": "null", "nulls": `[null,{},{"Service":null},{"Service":{"Service":"greeter"}}]`, "wrong": `{"a":5}`, "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked <- struct{}{}
				w.Header().Set("X-Consul-Index", "0")
				_, _ = io.WriteString(w, body) // the test sees it if it fails
			}))
			defer server.Close()
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Open(u, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, _ = r.Get(ctx, "greeter")
			_, _ = r.List(ctx)
			if err := r.Register(ctx, greeter("greeter", "n", 1), time.Second); err == nil {
				t.Error("a registration that cannot be seen succeeded")
			}
			_ = r.Deregister(ctx, greeter("greeter", "n", 1))
			ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			before := len(asked)
			if err := r.Watch(ctx, func(registry.Event) {}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Watch: %v", err)
			}
			if n := len(asked) - before; n > 30 {
				t.Errorf("a watch asked %d times in 0.3 s", n)
			}
		})
	}
}

func TestEndlessAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, err := io.WriteString(w, `{"`)
		for chunk := strings.Repeat("x", 1<<16); err == nil; {
			_, err = io.WriteString(w, chunk)
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(u, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client := &http.Client{Transport: limited{next: r.transport, limit: 1 << 20}}
	response, err := client.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil || err.Error() != "the agent's answer is longer than 1048576 bytes" || n != 1<<20 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

func TestLongest(t *testing.T) {
	r := open(t, testserver.Consul(t))
	service := greeter(strings.Repeat("/", maxName), strings.Repeat("..//", maxName/4), 1)
	register(t, r, service, time.Minute)
	if have, err := r.Get(t.Context(), service.Name); err != nil || have[0].Nodes[0].ID != service.Nodes[0].ID {
		t.Errorf("%.200v, %v", have, err)
	}
	service.Name += "/"
	if err := r.Register(t.Context(), service, 0); err == nil {
		t.Error("a name that is too long was registered")
	}
}

// TestTakeOver: what another program registered with a time to live stays when
// it is registered again without one.
func TestTakeOver(t *testing.T) {
	r := open(t, testserver.Consul(t))
	service := greeter("greeter", "n", 1)
	want, err := describe(service, service.Nodes[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	delete(want.Meta, ttlKey)
	want.Check = &api.AgentServiceCheck{TTL: "1h"} // and it is critical
	if err := r.client.Agent().ServiceRegister(want); err != nil {
		t.Fatal(err)
	}
	register(t, r, service, 0)
	if have, err := r.Get(t.Context(), "greeter"); err != nil || len(have[0].Nodes) != 1 {
		t.Errorf("%+v, %v", have, err)
	}
	checks, err := r.client.Agent().Checks()
	if err != nil || len(checks) != 0 {
		t.Errorf("checks left: %v, %v", checks, err)
	}
}
