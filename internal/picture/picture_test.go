package picture_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/registry"
)

func service(name string, ports ...int) []registry.Service {
	s := registry.Service{Name: name}
	for _, port := range ports {
		s.Nodes = append(s.Nodes, registry.Node{ID: "n", Address: "127.0.0.1", Port: port})
	}
	return []registry.Service{s}
}

func TestNotKnownIsNotEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := picture.New()
		ctx, cancel := context.WithCancel(t.Context())
		answers := make(chan error, 2)
		go func() { _, err := p.Get(ctx, "a"); answers <- err }()
		synctest.Wait()
		cancel()
		if err := <-answers; !errors.Is(err, context.Canceled) {
			t.Errorf("Get of what is not known: %v", err)
		}
		go func() { _, err := p.Get(t.Context(), "a"); answers <- err }()
		synctest.Wait()
		p.Set("a", service("a", 1)) // not before all is known
		p.Fail(errors.New("no network"))
		if err := <-answers; err == nil || !strings.Contains(err.Error(), "no network") || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Get after a failure: %v", err)
		}
		p.Replace(nil)
		p.Fail(errors.New("too late"))
		if _, err := p.Get(t.Context(), "a"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Get of an empty picture: %v", err)
		}
		if names, err := p.List(t.Context()); err != nil || names == nil || len(names) != 0 {
			t.Errorf("List of an empty picture: %v, %v", names, err)
		}
	})
}

// Each change once, in order; what is set again as it was is no change.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := picture.New()
		ctx, cancel := context.WithCancel(t.Context())
		var events []string
		hold := make(chan struct{})
		ended := make(chan error)
		go func() {
			ended <- p.Watch(ctx, func(e registry.Event) {
				text := e.Name
				switch {
				case e.Name != "" && e.Services == nil:
					t.Errorf("the event for %s carries nothing", e.Name)
				case e.Name != "" && len(e.Services) == 0:
					text += " gone"
				}
				events = append(events, text)
				<-hold
			})
		}()
		synctest.Wait()
		if len(events) != 0 {
			t.Fatalf("live before anything is known: %q", events)
		}
		p.Replace(map[string][]registry.Service{"a": service("a", 1), "b": service("b", 1)})
		synctest.Wait()
		for range 3 { // while the watcher is busy
			p.Set("b", service("b", 2))
			p.Set("a", service("a", 1))
			p.Set("c", service("c", 1))
			p.Set("b", service("b", 1))
		}
		hold <- struct{}{}
		synctest.Wait()
		hold <- struct{}{}
		synctest.Wait()
		hold <- struct{}{}
		p.Replace(map[string][]registry.Service{"b": service("b", 1), "c": service("c", 1)})
		synctest.Wait()
		close(hold)
		p.Replace(map[string][]registry.Service{"b": service("b", 1), "c": service("c", 1)})
		synctest.Wait()
		if have := strings.Join(events, ", "); have != ", b, c, a gone" {
			t.Errorf("events: %s", have)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
	})
}
