package sidecar

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// One of two registries is away when the sidecar starts: the other one serves,
// and the first comes in when it is there.
func TestOneOfTwoRegistriesComesLater(t *testing.T) {
	var there atomic.Bool
	one, two := memory.New(), memory.New()
	drivers := Drivers{
		Registries: map[string]func(context.Context, Env) (registry.Registry, error){
			"one": func(ctx context.Context, _ Env) (registry.Registry, error) {
				if there.Load() {
					return one, nil
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
			"two": func(context.Context, Env) (registry.Registry, error) { return two, nil },
		},
		Brokers: map[string]func(context.Context, Env) (broker.Broker, error){
			"memory": func(context.Context, Env) (broker.Broker, error) { return brokermemory.New(), nil },
		},
	}
	service := func(name string) registry.Service {
		return registry.Service{Name: name, Nodes: []registry.Node{{ID: "n", Address: "127.0.0.1", Port: 1}}}
	}
	for reg, name := range map[*memory.Registry]string{one: "first", two: "second"} {
		if err := reg.Register(t.Context(), service(name), 0); err != nil {
			t.Fatal(err)
		}
	}
	bounded := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	c, err := Connect(bounded(), Engines{Registry: "one,two", Broker: "memory"}, drivers, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	ctx, stop := context.WithCancel(t.Context())
	events, ended := make(chan registry.Event, 100), make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Registry.Watch(ctx, func(e registry.Event) { events <- e }) // ctx's error
	}()
	defer func() { stop(); <-ended }()

	if got, err := c.Registry.Get(bounded(), "second"); err != nil || len(got) != 1 {
		t.Errorf("the other one's: %v, %v", got, err)
	}
	if _, err := c.Registry.Get(bounded(), "first"); err == nil || errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "one") {
		t.Errorf("what nobody can know: %v", err)
	}
	if err := c.Registry.Register(bounded(), service("new"), 0); err == nil {
		t.Error("a registration moved to the second")
	}
	if err := c.Ping(bounded()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	for len(events) > 0 {
		<-events
	}
	there.Store(true)
	for deadline := time.After(30 * time.Second); ; {
		if _, err := c.Registry.Get(bounded(), "first"); err == nil {
			break
		}
		select {
		case <-events: // its watch has begun
		case <-deadline:
			t.Fatal("it is never there")
		}
	}
	if err := c.Registry.Register(bounded(), service("new"), 0); err != nil {
		t.Errorf("Register: %v", err)
	}
	if _, err := one.Get(t.Context(), "new"); err != nil {
		t.Errorf("not with the first: %v", err)
	}
}

// What will not be better later is told at once.
func TestOneOfTwoRegistriesIsUnusable(t *testing.T) {
	broken := errors.New("a newer micro")
	drivers := Drivers{Registries: map[string]func(context.Context, Env) (registry.Registry, error){
		"one": func(context.Context, Env) (registry.Registry, error) { return nil, broken },
		"two": func(context.Context, Env) (registry.Registry, error) { return memory.New(), nil },
	}}
	if _, err := Connect(t.Context(), Engines{Registry: "one,two", Broker: NoBroker}, drivers, quiet()); !errors.Is(err, broken) {
		t.Errorf("Connect: %v", err)
	}
}
