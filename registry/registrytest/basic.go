package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

func testRoundTrip(t *testing.T, s *suite) {
	want := registry.Service{
		Name: s.name("greeter"), Version: "1.0.0",
		Metadata:  map[string]string{"team": "blue"},
		Endpoints: []registry.Endpoint{{Name: "Say.Hello"}},
		Nodes:     []registry.Node{{ID: "greeter-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp"}}},
	}
	s.register(t, want, 0)
	s.expect(t, want.Name, want) // visible when Register returns
	if !s.listed(t, want.Name) {
		t.Errorf("List does not hold %q", want.Name)
	}
	s.deregister(t, want.Name, "greeter-1")
	s.expectGone(t, want.Name)
	if s.listed(t, want.Name) {
		t.Errorf("List holds %q after its last node was removed", want.Name)
	}
	s.register(t, want, time.Minute) // and it can come back
	s.expect(t, want.Name, want)
}

func testUnknown(t *testing.T, s *suite) {
	services, err := s.Get(timeout(t), s.name("nosuch"))
	if !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get of an unknown service: %v, %v; want ErrNotFound", services, err)
	}
	s.deregister(t, s.name("nosuch"), "n1", "n2")

	name := s.name("greeter")
	s.register(t, s.service(name, "1", "n1"), 0)
	s.deregister(t, name, "n2")
	s.deregister(t, name)
	if have := ids(s.get(t, name)); !slices.Equal(have, []string{"n1"}) {
		t.Errorf("after removing a node that is not there: %q", have)
	}
}

func testSeveralNodes(t *testing.T, s *suite) {
	name := s.name("greeter")
	s.register(t, s.service(name, "1", "c", "a"), time.Minute) // all nodes of one call
	s.register(t, s.service(name, "1", "b"), 0)                // and one of another
	if have := ids(s.get(t, name)); !slices.Equal(have, []string{"a", "b", "c"}) {
		t.Fatalf("nodes: %q", have)
	}
	s.deregister(t, name, "a", "c", "nosuch")
	if have := ids(s.get(t, name)); !slices.Equal(have, []string{"b"}) {
		t.Fatalf("nodes after removing a and c: %q", have)
	}
	if !s.listed(t, name) {
		t.Errorf("List does not hold %q, which has a node left", name)
	}
}

func testSeveralVersions(t *testing.T, s *suite) {
	name := s.name("greeter")
	newer, older, none := s.service(name, "1.10.0", "x", "y"), s.service(name, "1.9.0", "z"), s.service(name, "", "u")
	newer.Metadata = map[string]string{"which": "newer"}
	older.Endpoints = []registry.Endpoint{{Name: "Old.Call"}}
	for _, v := range []registry.Service{newer, none, older} {
		s.register(t, v, 0)
	}
	s.expect(t, name, none, older, newer)
	s.deregister(t, name, "z")
	s.expect(t, name, none, newer)
}

func testReplace(t *testing.T, s *suite) {
	first := s.service(s.name("greeter"), "1", "n")
	first.Nodes[0].Metadata = map[string]string{"a": "1", "b": "2"}
	first.Endpoints = []registry.Endpoint{{Name: "Old.Call"}}
	s.register(t, first, 0)

	second := s.service(first.Name, "2", "n")
	second.Nodes[0].Address, second.Nodes[0].Port = "127.0.0.2", 9999
	second.Nodes[0].Metadata = map[string]string{"a": "3"}
	for _, ttl := range []time.Duration{0, time.Minute, time.Minute, 0} {
		s.register(t, second, ttl)
		s.expect(t, first.Name, second)
		second.Nodes[0].Port++
	}
}

// testIndependent: a node is its service's name and its id, both exactly.
func testIndependent(t *testing.T, s *suite) {
	one, two := s.service(s.name("one"), "1", "shared"), s.service(s.name("two"), "1", "shared")
	upper := s.service(s.name("ONE"), "1", "shared")
	cased := s.service(s.name("cased"), "1", "Node", "node", "NODE")
	longer := s.service(s.name("one.more"), "1", "shared")
	all := []registry.Service{one, two, upper, cased, longer}
	for i := range all {
		all[i].Nodes[0].Port = 7000 + i
		s.register(t, all[i], time.Duration(i)*time.Minute)
	}
	slices.SortFunc(cased.Nodes, func(a, b registry.Node) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	for _, service := range all {
		s.expect(t, service.Name, service)
	}
	for i, service := range all {
		s.deregister(t, service.Name, ids([]registry.Service{service})...)
		s.expectGone(t, service.Name)
		for _, other := range all[i+1:] {
			s.expect(t, other.Name, other)
			if !s.listed(t, other.Name) {
				t.Errorf("List lost %q when %q was removed", other.Name, service.Name)
			}
		}
	}
}

func testManyNodes(t *testing.T, s *suite) {
	name := s.name("crowd")
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("node-%02d", i))
	}
	s.register(t, s.service(name, "1", want...), time.Minute)
	if have := ids(s.get(t, name)); !slices.Equal(have, want) {
		t.Fatalf("have %q\nwant %q", have, want)
	}
	s.deregister(t, name, want...)
	s.expectGone(t, name)
}

func testCancelledContext(t *testing.T, s *suite) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	service := s.service(s.name("greeter"), "1", "n")
	calls := map[string]func() error{
		"Register":   func() error { return s.Register(ctx, service, 0) },
		"Deregister": func() error { return s.Deregister(ctx, service) },
		"Get":        func() error { _, err := s.Get(ctx, service.Name); return err },
		"List":       func() error { _, err := s.List(ctx); return err },
		"Watch":      func() error { return s.Watch(ctx, func(registry.Event) {}) },
	}
	for name, call := range calls {
		begun := time.Now()
		err := call()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v, want context.Canceled", name, err)
		}
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s with a cancelled context took %v", name, took)
		}
	}
}

func testPing(t *testing.T, s *suite) {
	p, able := s.Registry.(registry.Pinger)
	if !able {
		t.Log("this registry has no Ping")
		return
	}
	if err := p.Ping(timeout(t)); err != nil {
		t.Errorf("Ping: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Ping(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Ping with a cancelled context: %v", err)
	}
}
