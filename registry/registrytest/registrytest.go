// Package registrytest is the suite that every implementation of
// [registry.Registry] passes. It owns the meaning of the contract in tests;
// what only one engine does is tested beside its driver.
package registrytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// Options says what an engine cannot do as finely as others.
type Options struct {
	// MinTTL is the shortest time to live that the tests use; 0 is two seconds.
	MinTTL time.Duration
	// ExpirySlack is how long after its deadline a node may still be found;
	// 0 is ten seconds: a busy machine takes its time.
	ExpirySlack time.Duration
	// Lacks are tests that the engine cannot pass, by name, and why. It is for
	// code that is not ours; a driver has none.
	Lacks map[string]string
	// Kept, when set, makes what arrives of what was registered; it is for the
	// same code.
	Kept func(registry.Service) registry.Service
}

// patience bounds every wait for something that ought to happen at once.
const patience = 30 * time.Second

// Run runs the suite. open returns a registry that is ready and closes it with
// t.Cleanup; it is called for every test, for some at the same time. All of
// them may share an engine: the suite uses names that nobody else has, and
// removes what it registered.
func Run(t *testing.T, open func(t *testing.T) registry.Registry, options ...Options) {
	t.Helper()
	o := Options{MinTTL: 2 * time.Second, ExpirySlack: 10 * time.Second}
	for _, given := range options {
		o.MinTTL = max(o.MinTTL, given.MinTTL)
		o.ExpirySlack = max(o.ExpirySlack, given.ExpirySlack)
		o.Lacks, o.Kept = given.Lacks, given.Kept
	}
	checkLacks(t, o.Lacks)
	run := func(t *testing.T, test func(t *testing.T, s *suite)) {
		test(t, &suite{Registry: open(t), Options: o, open: open, prefix: prefix()})
	}
	for _, test := range tests {
		if o.Lacks[test.name] != "" {
			continue
		}
		t.Run(test.name, func(t *testing.T) { run(t, test.run) })
	}
	t.Run("Time", func(t *testing.T) { // these only wait: all at once
		for _, test := range timed {
			if o.Lacks[test.name] != "" {
				continue
			}
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				run(t, test.run)
			})
		}
	})
}

type test struct {
	name string
	run  func(t *testing.T, s *suite)
}

var tests = []test{
	{"RegisterGetListDeregister", testRoundTrip},
	{"Unknown", testUnknown},
	{"SeveralNodes", testSeveralNodes},
	{"SeveralVersions", testSeveralVersions},
	{"Replace", testReplace},
	{"Independent", testIndependent},
	{"NamesAndIDs", testNamesAndIDs},
	{"Addresses", testAddresses},
	{"Metadata", testMetadata},
	{"Endpoints", testEndpoints},
	{"ManyNodes", testManyNodes},
	{"CancelledContext", testCancelledContext},
	{"Ping", testPing},
	{"WatchLive", testWatchLive},
	{"WatchChanges", testWatchChanges},
	{"WatchTwoWatchers", testWatchTwoWatchers},
	{"WatchConcurrentWriters", testWatchConcurrentWriters},
	{"WatchEnds", testWatchEnds},
	{"Concurrency", testConcurrency},
}

var timed = []test{
	{"Expiry", testExpiry},
	{"Renewal", testRenewal},
	{"TTLChanges", testTTLChanges},
	{"WatchExpiry", testWatchExpiry},
	{"WatchName", testWatchName},
}

// checkLacks logs what is left out, and refuses a name that is no test's.
func checkLacks(t *testing.T, lacks map[string]string) {
	t.Helper()
	for name, why := range lacks {
		if !slices.ContainsFunc(slices.Concat(tests, timed), func(test test) bool { return test.name == name }) {
			t.Errorf("there is no test %q to leave out", name)
		}
		t.Logf("left out: %s: %s", name, why)
	}
}

// suite is one test's registry and the names that belong to the test.
type suite struct {
	registry.Registry
	Options
	open   func(t *testing.T) registry.Registry
	prefix string
}

func prefix() string { return fmt.Sprintf("rt%08x", rand.Uint32()) }

// name returns a service name that no other test uses.
func (s *suite) name(suffix string) string { return s.prefix + "." + suffix }

// service returns a service with a node for each id.
func (s *suite) service(name, version string, ids ...string) registry.Service {
	service := registry.Service{Name: name, Version: version}
	for i, id := range ids {
		service.Nodes = append(service.Nodes, registry.Node{ID: id, Address: "127.0.0.1", Port: 9000 + i})
	}
	return service
}

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// register registers and removes at the end of the test.
func (s *suite) register(t *testing.T, service registry.Service, ttl time.Duration) {
	t.Helper()
	if err := s.Register(timeout(t), service, ttl); err != nil {
		t.Fatalf("Register(%q): %v", service.Name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Deregister(ctx, service); err != nil {
			t.Errorf("Deregister(%q) in clean-up: %v", service.Name, err)
		}
	})
}

func (s *suite) deregister(t *testing.T, name string, ids ...string) {
	t.Helper()
	service := registry.Service{Name: name}
	for _, id := range ids { // by id alone: nothing else is filled in
		service.Nodes = append(service.Nodes, registry.Node{ID: id})
	}
	if err := s.Deregister(timeout(t), service); err != nil {
		t.Fatalf("Deregister(%q, %q): %v", name, ids, err)
	}
}

// get answers nil for a service that is not found.
func (s *suite) get(t *testing.T, name string) []registry.Service {
	t.Helper()
	services, err := s.Get(timeout(t), name)
	if errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	if err != nil {
		t.Fatalf("Get(%q): %v", name, err)
	}
	checkShape(t, name, services)
	return services
}

// expect compares what Get answers with the services, given in order.
func (s *suite) expect(t *testing.T, name string, want ...registry.Service) {
	t.Helper()
	want = s.kept(want)
	if have := s.get(t, name); !same(have, want) {
		t.Fatalf("Get(%q):\n have %s\n want %s", name, show(have), show(want))
	}
}

// kept is what arrives of what was registered.
func (s *suite) kept(services []registry.Service) []registry.Service {
	if s.Kept == nil {
		return services
	}
	var out []registry.Service
	for _, service := range services {
		out = append(out, s.Kept(service))
	}
	return out
}

// expectGone waits for a removed service to be gone: not found, or known
// without a usable node.
func (s *suite) expectGone(t *testing.T, name string) {
	t.Helper()
	if have := s.get(t, name); len(ids(have)) != 0 {
		t.Fatalf("Get(%q) after everything was removed: %s", name, show(have))
	}
}

func (s *suite) listed(t *testing.T, name string) bool {
	t.Helper()
	names, err := s.List(timeout(t))
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	if !slices.IsSorted(names) {
		t.Errorf("List is not sorted: %q", names)
	}
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Errorf("List has duplicates: %q", names)
	}
	return slices.Contains(names, name)
}

// checkShape checks what every answer of Get and every Event promises.
func checkShape(t *testing.T, name string, services []registry.Service) {
	t.Helper()
	for i, s := range services {
		if s.Name != name {
			t.Errorf("asked for %q, got a service named %q", name, s.Name)
		}
		if i > 0 && registry.CompareVersions(services[i-1].Version, s.Version) >= 0 {
			t.Errorf("%q: versions %q and %q are not sorted as by registry.Sort, or there twice", name, services[i-1].Version, s.Version)
		}
		if len(services) > 1 && len(s.Nodes) == 0 {
			t.Errorf("%q: version %q stands there without nodes beside others", name, s.Version)
		}
		if !slices.IsSortedFunc(s.Nodes, func(a, b registry.Node) int { return strings.Compare(a.ID, b.ID) }) {
			t.Errorf("%q: nodes are not sorted by id: %s", name, show(services))
		}
	}
}

// ids returns the node ids of all versions, sorted.
func ids(services []registry.Service) []string {
	all := []string{}
	for _, s := range services {
		for _, n := range s.Nodes {
			all = append(all, n.ID)
		}
	}
	slices.Sort(all)
	return all
}

// same compares by content: nil and empty are the same.
func same(a, b []registry.Service) bool { return show(a) == show(b) }

func show(services []registry.Service) string {
	normal := []registry.Service{}
	for _, s := range services {
		normal = append(normal, registry.Normalize(s))
	}
	text, err := json.Marshal(normal)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
