package merged_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
	"github.com/micro/sidecar/registry/merged"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readOnly is a registry that others fill.
type readOnly struct{ *memory.Registry }

func (readOnly) Register(context.Context, registry.Service, time.Duration) error {
	return registry.ErrReadOnly
}

func (readOnly) Deregister(context.Context, registry.Service) error { return registry.ErrReadOnly }

// hanging answers when it is given up.
type hanging struct{ *memory.Registry }

func (hanging) Get(ctx context.Context, _ string) ([]registry.Service, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func merge(registries ...registry.Registry) *merged.Registry {
	var members []merged.Member
	for i, r := range registries {
		members = append(members, merged.Member{Name: fmt.Sprint("r", i), Registry: r})
	}
	return merged.New(slog.New(slog.DiscardHandler), members...)
}

func service(name, version string, nodes ...string) registry.Service {
	s := registry.Service{Name: name, Version: version}
	for i, id := range nodes {
		s.Nodes = append(s.Nodes, registry.Node{ID: id, Address: "127.0.0.1", Port: 1 + i})
	}
	return s
}

func register(t *testing.T, r registry.Registry, s registry.Service) {
	t.Helper()
	if err := r.Register(t.Context(), s, 0); err != nil {
		t.Fatal(err)
	}
}

// have returns a service as "version:id,id version:id", or its error.
func have(t *testing.T, r registry.Registry, name string) string {
	t.Helper()
	services, err := r.Get(t.Context(), name)
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, s := range services {
		var ids []string
		for _, n := range s.Nodes {
			ids = append(ids, n.ID)
		}
		out = append(out, s.Version+":"+strings.Join(ids, ","))
	}
	return strings.Join(out, " ")
}

func expect(t *testing.T, r registry.Registry, name, want string) {
	t.Helper()
	if have := have(t, r, name); have != want {
		t.Errorf("%s: have %q, want %q", name, have, want)
	}
}

func TestSuite(t *testing.T) {
	registrytest.Run(t, func(*testing.T) registry.Registry { return merge(memory.New(), memory.New()) })
}

// The suite's writes go past a registry that is read only, and its reads past
// one that is away.
func TestSuiteBesideOthers(t *testing.T) {
	registrytest.Run(t, func(*testing.T) registry.Registry { return merge(readOnly{memory.New()}, memory.New()) })
}

func TestUnion(t *testing.T) {
	one, two := memory.New(), memory.New()
	r := merge(one, two)
	register(t, one, service("a", "1", "x", "both"))
	register(t, two, service("a", "2", "y", "both"))
	register(t, two, service("a", "1", "w"))
	register(t, two, service("b", "1", "z"))
	expect(t, r, "a", "1:both,w,x 2:y")
	expect(t, r, "b", "1:z")
	if names, err := r.List(t.Context()); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if _, err := r.Get(t.Context(), "c"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("unknown to all: %v", err)
	}
}

func TestOneIsAway(t *testing.T) {
	one, two := memory.New(), memory.New()
	r := merge(one, two)
	register(t, one, service("a", "1", "x"))
	register(t, two, service("a", "1", "y"))
	register(t, two, service("b", "1", "z"))
	expect(t, r, "a", "1:x,y")
	if _, err := r.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	one.Break(errors.New("away"))
	expect(t, r, "a", "1:x,y") // its last answer
	expect(t, r, "b", "1:z")
	if names, err := r.List(t.Context()); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if _, err := r.Get(t.Context(), "c"); err == nil || errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "r0: ") {
		t.Errorf("unknown to one, the other is away: %v", err)
	}
	if err := r.Ping(t.Context()); err != nil {
		t.Errorf("Ping with one away: %v", err)
	}
	if err := r.Register(t.Context(), service("n", "1", "n"), 0); err == nil || errors.Is(err, registry.ErrReadOnly) {
		t.Errorf("Register where the first is away: %v", err)
	}
	two.Break(errors.New("away, too"))
	if err := r.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "r0: ") || !strings.Contains(err.Error(), "r1: ") {
		t.Errorf("Ping with both away: %v", err)
	}
	if _, err := r.List(t.Context()); err == nil {
		t.Error("List with both away")
	}
	one.Break(nil)
	two.Break(nil)
	if err := one.Deregister(t.Context(), service("a", "1", "x")); err != nil {
		t.Fatal(err)
	}
	expect(t, r, "a", "1:y")
}

func TestAllReadOnly(t *testing.T) {
	r := merge(readOnly{memory.New()}, readOnly{memory.New()})
	for _, err := range []error{r.Register(t.Context(), service("a", "1", "n"), 0), r.Deregister(t.Context(), service("a", "1", "n"))} {
		if !errors.Is(err, registry.ErrReadOnly) {
			t.Errorf("have %v", err)
		}
	}
}

// One that hangs costs the others' answers two seconds once, then little.
func TestOneHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := memory.New()
		r := merge(hanging{memory.New()}, two)
		register(t, two, service("a", "1", "y"))
		for _, most := range []time.Duration{2 * time.Second, 250 * time.Millisecond, 250 * time.Millisecond} {
			begun := time.Now()
			expect(t, r, "a", "1:y")
			if took := time.Since(begun); took > most {
				t.Errorf("it took %v", took)
			}
		}
	})
}

// A watch that breaks is begun again, and the other's events come meanwhile.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := memory.New(), memory.New()
		r := merge(one, two)
		ctx, cancel := context.WithCancel(t.Context())
		var events []string
		ended := make(chan error)
		go func() {
			ended <- r.Watch(ctx, func(e registry.Event) {
				if e.Services != nil {
					t.Errorf("an event carries what is not all: %+v", e)
				}
				events = append(events, "<"+e.Name+">")
			})
		}()
		step := func(want string) {
			t.Helper()
			synctest.Wait()
			if have := strings.Join(events, ""); have != want {
				t.Errorf("have %s, want %s", have, want)
			}
			events = nil
		}
		step("<><>")
		register(t, one, service("a", "1", "x"))
		step("<a>")
		one.Break(errors.New("away"))
		register(t, two, service("b", "1", "x"))
		step("<b>")
		one.Break(nil)
		time.Sleep(firstPauses) // the bubble's clock
		step("<>")
		register(t, one, service("c", "1", "x"))
		step("<c>")
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
	})
}

const firstPauses = 2 * time.Second
