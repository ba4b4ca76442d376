package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// follower does with events what discovery does: it keeps what they carry and
// re-reads what they only mention. It never reads unless an event says so, so
// what it knows shows whether the events were enough.
type follower struct {
	suite  *suite
	names  []string
	queue  chan registry.Event
	ended  chan error
	cancel context.CancelFunc

	mu      sync.Mutex
	state   map[string][]registry.Service
	events  int
	changed chan struct{} // closed and replaced at every event
	errs    []error
}

// follow starts a watch and returns when it is live.
func (s *suite) follow(t *testing.T, watch func(context.Context, func(registry.Event)) error, names ...string) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{
		suite: s, names: names, cancel: cancel,
		queue: make(chan registry.Event, 100_000), ended: make(chan error, 1),
		state: make(map[string][]registry.Service), changed: make(chan struct{}),
	}
	var work sync.WaitGroup
	work.Go(func() {
		defer close(f.queue)
		f.ended <- watch(ctx, func(e registry.Event) { f.queue <- e })
	})
	work.Go(func() {
		for e := range f.queue {
			f.apply(ctx, t, e)
		}
	})
	t.Cleanup(func() {
		cancel()
		work.Wait()
		for _, err := range f.errs {
			t.Error(err)
		}
	})
	f.wait(t, "the zero event of a live watch", func() bool { return f.events > 0 })
	return f
}

func (f *follower) apply(ctx context.Context, t *testing.T, e registry.Event) {
	read := make(map[string][]registry.Service)
	var errs []error
	switch {
	case e.Name != "" && !slices.Contains(f.names, e.Name):
		return // another test's
	case e.Services != nil:
		checkShape(t, e.Name, e.Services)
		read[e.Name] = e.Services
	default:
		names := f.names
		if e.Name != "" {
			names = []string{e.Name}
		}
		for _, name := range names {
			services, err := f.suite.Get(ctx, name)
			if err != nil && !errors.Is(err, registry.ErrNotFound) && ctx.Err() == nil {
				errs = append(errs, fmt.Errorf("Get(%q) after an event: %w", name, err))
			}
			read[name] = services
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, services := range read {
		f.state[name] = services
	}
	f.events++
	f.errs = append(f.errs, errs...)
	close(f.changed)
	f.changed = make(chan struct{})
}

// wait waits until the events have made the condition, which is called with
// the lock held, true.
func (f *follower) wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience + f.suite.MinTTL + f.suite.ExpirySlack)
	for {
		f.mu.Lock()
		done, changed, state := condition(), f.changed, fmt.Sprint(f.state)
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case err := <-f.ended:
			t.Fatalf("the watch ended while waiting for %s: %v", what, err)
		case <-deadline:
			t.Fatalf("no event told of %s; what the events told: %s", what, state)
		}
	}
}

func (f *follower) waitServices(t *testing.T, what, name string, want ...registry.Service) {
	t.Helper()
	want = f.suite.kept(want)
	f.wait(t, what, func() bool { return same(f.state[name], want) })
}

func (f *follower) waitIDs(t *testing.T, what, name string, want ...string) {
	t.Helper()
	f.wait(t, what, func() bool { return slices.Equal(ids(f.state[name]), want) })
}

// testWatchLive: the zero event comes by itself, when nothing changes.
func testWatchLive(t *testing.T, s *suite) {
	before := s.service(s.name("before"), "1", "n")
	s.register(t, before, 0)
	f := s.follow(t, s.Watch, before.Name)
	f.waitServices(t, "what was there before the watch", before.Name, before)
}

func testWatchChanges(t *testing.T, s *suite) {
	service := s.service(s.name("greeter"), "1", "n")
	s.followChanges(t, s.follow(t, s.Watch, service.Name), service)
}

func (s *suite) followChanges(t *testing.T, f *follower, service registry.Service) {
	t.Helper()
	for round := range 3 {
		service.Version = fmt.Sprint(round)
		s.register(t, service, time.Minute)
		f.waitServices(t, "a registration", service.Name, service)
		service.Nodes[0].Port++
		s.register(t, service, time.Minute)
		f.waitServices(t, "a new port", service.Name, service)
		service.Nodes[0].Metadata = map[string]string{"round": fmt.Sprint(round)}
		s.register(t, service, time.Minute)
		f.waitServices(t, "new metadata", service.Name, service)
		s.register(t, s.service(service.Name, service.Version+".1", "other"), 0)
		f.waitIDs(t, "a second node", service.Name, "n", "other")
		s.deregister(t, service.Name, "other")
		f.waitServices(t, "the end of the second node", service.Name, service)
		s.deregister(t, service.Name, "n")
		f.waitIDs(t, "the end of the last node", service.Name)
	}
}

func testWatchExpiry(t *testing.T, s *suite) {
	service := s.service(s.name("mortal"), "1", "n")
	f := s.follow(t, s.Watch, service.Name)
	begun := time.Now()
	s.register(t, service, s.MinTTL)
	f.waitIDs(t, "a registration", service.Name, "n")
	f.waitIDs(t, "its expiry", service.Name)
	s.checkLifetime(t, begun, time.Now())
}

func testWatchTwoWatchers(t *testing.T, s *suite) {
	other := &suite{Registry: s.open(t), Options: s.Options, prefix: s.prefix}
	service := s.service(s.name("greeter"), "1", "n")
	one, two := s.follow(t, s.Watch, service.Name), s.follow(t, s.Watch, service.Name)
	s.register(t, service, 0)
	one.waitServices(t, "a registration", service.Name, service)
	two.waitServices(t, "a registration", service.Name, service)
	one.cancel()
	s.deregister(t, service.Name, "n")
	two.waitIDs(t, "a removal after the other watch ended", service.Name)
	if err := other.Deregister(timeout(t), service); err != nil {
		t.Errorf("another registry of the same engine: %v", err)
	}
}

// testWatchConcurrentWriters: however the changes interleave, who follows the
// events ends where the engine is.
func testWatchConcurrentWriters(t *testing.T, s *suite) {
	const writers, rounds = 6, 8
	shared := s.name("shared")
	names := []string{shared}
	for w := range writers {
		names = append(names, s.name(fmt.Sprint("own", w)))
	}
	f := s.follow(t, s.Watch, names...)
	var work sync.WaitGroup
	for w := range writers {
		id := fmt.Sprint("n", w)
		for _, service := range []registry.Service{s.service(shared, "1", id), s.service(s.name(fmt.Sprint("own", w)), "1", id)} {
			work.Go(func() {
				for round := range rounds {
					service.Nodes = []registry.Node{{ID: id, Address: "127.0.0.1", Port: 1000 + round}}
					if err := s.Register(timeout(t), service, time.Duration(round%2)*time.Minute); err != nil {
						t.Errorf("Register: %v", err)
					}
					if round == rounds-1 && w%2 == 0 {
						break // even writers leave their node there
					}
					if err := s.Deregister(timeout(t), service); err != nil {
						t.Errorf("Deregister: %v", err)
					}
				}
			})
		}
	}
	work.Wait()
	for _, name := range names {
		final := s.get(t, name)
		f.waitIDs(t, "the last of many changes to "+name, name, ids(final)...)
		f.waitServices(t, "the last of many changes to "+name, name, final...)
	}
	if have := ids(s.get(t, shared)); !slices.Equal(have, []string{"n0", "n2", "n4"}) {
		t.Errorf("nodes after all writers ended: %q", have)
	}
	for w := range writers {
		id := fmt.Sprint("n", w)
		s.deregister(t, shared, id)
		s.deregister(t, s.name(fmt.Sprint("own", w)), id)
	}
}

func testWatchEnds(t *testing.T, s *suite) {
	f := s.follow(t, s.Watch)
	s.checkEnd(t, f)
}

func (s *suite) checkEnd(t *testing.T, f *follower) {
	t.Helper()
	f.cancel()
	select {
	case err := <-f.ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Error("the watch did not end with its context")
	}
}

func testWatchName(t *testing.T, s *suite) {
	w, able := s.Registry.(registry.NameWatcher)
	if !able {
		t.Log("this registry has no WatchName")
		return
	}
	service := s.service(s.name("one name / ü"), "1", "n")
	f := s.follow(t, func(ctx context.Context, changed func(registry.Event)) error {
		return w.WatchName(ctx, service.Name, func(e registry.Event) {
			if e.Name != "" && e.Name != service.Name {
				t.Errorf("WatchName(%q) told of %q", service.Name, e.Name)
			}
			changed(e)
		})
	}, service.Name)
	s.register(t, s.service(s.name("bystander"), "1", "n"), 0)
	s.followChanges(t, f, service)
	s.register(t, service, s.MinTTL)
	f.waitIDs(t, "a registration", service.Name, "n")
	f.waitIDs(t, "its expiry", service.Name)
	s.checkEnd(t, f)
}

// testConcurrency is for the race detector.
func testConcurrency(t *testing.T, s *suite) {
	f := s.follow(t, s.Watch, s.name("busy0"), s.name("busy1"))
	var work sync.WaitGroup
	for g := range 8 {
		work.Go(func() {
			service := s.service(s.name(fmt.Sprint("busy", g%2)), "1", fmt.Sprint("n", g))
			for range 5 {
				if err := s.Register(timeout(t), service, time.Minute); err != nil {
					t.Errorf("Register: %v", err)
				}
				services, err := s.Get(timeout(t), service.Name)
				if err != nil || !slices.Contains(ids(services), service.Nodes[0].ID) {
					t.Errorf("Get after Register: %s, %v", show(services), err)
				}
				if _, err := s.List(timeout(t)); err != nil {
					t.Errorf("List: %v", err)
				}
			}
			if err := s.Deregister(timeout(t), service); err != nil {
				t.Errorf("Deregister: %v", err)
			}
		})
	}
	work.Wait()
	f.waitIDs(t, "the end of all", s.name("busy0"))
	f.waitIDs(t, "the end of all", s.name("busy1"))
}
