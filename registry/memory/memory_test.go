package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	registrytest.Run(t, func(*testing.T) registry.Registry { return memory.New() })
}

var greeter = registry.Service{Name: "greeter", Version: "1", Nodes: []registry.Node{{ID: "n", Address: "127.0.0.1", Port: 1}}}

func TestExpiresToTheNanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := memory.New()
		if err := r.Register(t.Context(), greeter, time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second - 1) // the bubble's clock
		if _, err := r.Get(t.Context(), "greeter"); err != nil {
			t.Errorf("a nanosecond before the end: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := r.Get(t.Context(), "greeter"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("at the end: %v", err)
		}
		synctest.Wait()
		if names, err := r.List(t.Context()); err != nil || len(names) != 0 {
			t.Errorf("after the end: %q, %v", names, err)
		}
	})
}

func TestCallersCopiesAreTheirOwn(t *testing.T) {
	r := memory.New()
	mine := registry.Service{Name: "greeter", Metadata: map[string]string{"a": "1"},
		Nodes: []registry.Node{{ID: "n", Metadata: map[string]string{"b": "1"}}}}
	if err := r.Register(t.Context(), mine, 0); err != nil {
		t.Fatal(err)
	}
	mine.Metadata["a"], mine.Nodes[0].Metadata["b"], mine.Nodes[0].ID = "2", "2", "m"
	for range 2 {
		got, err := r.Get(t.Context(), "greeter")
		if err != nil {
			t.Fatal(err)
		}
		if got[0].Metadata["a"] != "1" || got[0].Nodes[0].Metadata["b"] != "1" || got[0].Nodes[0].ID != "n" {
			t.Fatalf("the registry changed with its callers' copies: %v", got)
		}
		got[0].Metadata["a"], got[0].Nodes[0].Metadata["b"], got[0].Nodes[0].ID = "3", "3", "o"
	}
}

func TestBreak(t *testing.T) {
	r := memory.New()
	if err := r.Register(t.Context(), greeter, 0); err != nil {
		t.Fatal(err)
	}
	away := errors.New("away")
	live, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- r.Watch(t.Context(), func(registry.Event) { live <- struct{}{} })
	}()
	<-live
	r.Break(away)
	if err := <-ended; !errors.Is(err, away) {
		t.Errorf("Watch: %v", err)
	}
	if _, err := r.Get(t.Context(), "greeter"); !errors.Is(err, away) {
		t.Errorf("Get: %v", err)
	}
	if err := r.Ping(t.Context()); !errors.Is(err, away) {
		t.Errorf("Ping: %v", err)
	}
	r.Break(nil)
	if _, err := r.Get(t.Context(), "greeter"); err != nil {
		t.Errorf("Get when repaired: %v", err)
	}
}

func TestRegisterNothing(t *testing.T) {
	r := memory.New()
	if err := r.Register(context.Background(), registry.Service{}, 0); err == nil {
		t.Error("a service without a name was registered")
	}
	if err := r.Register(context.Background(), registry.Service{Name: "x", Nodes: []registry.Node{{}}}, 0); err == nil {
		t.Error("a node without an id was registered")
	}
}
