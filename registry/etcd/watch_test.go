package etcd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// watched records the names that a watch tells.
type watched struct {
	mu     sync.Mutex
	names  []string
	wake   chan struct{} // closed and replaced at every event
	cancel context.CancelFunc
	ended  chan error
}

// follow starts a watch and returns when it is live.
func follow(t *testing.T, r *Registry) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{wake: make(chan struct{}), cancel: cancel, ended: make(chan error, 1)}
	go func() {
		w.ended <- r.Watch(ctx, func(e registry.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.names = append(w.names, e.Name)
			close(w.wake)
			w.wake = make(chan struct{})
		})
		close(w.ended)
	}()
	t.Cleanup(func() {
		cancel()
		for err := range w.ended {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the watch ended with %v", err)
			}
		}
	})
	w.wait(t, "a live watch", "")
	return w
}

// wait waits for an event of that name and forgets it and what was before.
func (w *watched) wait(t *testing.T, what, name string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		w.mu.Lock()
		i, wake := slices.Index(w.names, name), w.wake
		if i >= 0 {
			w.names = w.names[i+1:]
		}
		w.mu.Unlock()
		if i >= 0 {
			return
		}
		select {
		case <-wake:
		case <-deadline:
			t.Fatalf("no event %q: %s", name, what)
		}
	}
}

// forget drops what was told and returns it.
func (w *watched) forget() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.names
	w.names = nil
	return told
}

func service(name, id string) registry.Service {
	return registry.Service{Name: name, Version: "1", Nodes: []registry.Node{{ID: id, Address: "127.0.0.1", Port: 9091}}}
}

func register(t *testing.T, r *Registry, s registry.Service, ttl time.Duration) {
	t.Helper()
	if err := r.Register(bounded30(t), s, ttl); err != nil {
		t.Fatal(err)
	}
}

// next waits for an event and returns its name.
func (w *watched) next(t *testing.T) string {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		w.mu.Lock()
		wake := w.wake
		if len(w.names) > 0 {
			name := w.names[0]
			w.names = w.names[1:]
			w.mu.Unlock()
			return name
		}
		w.mu.Unlock()
		select {
		case <-wake:
		case <-deadline:
			t.Fatal("no event")
		}
	}
}

// waitGone waits for events until one of them means that the service is gone.
func (w *watched) waitGone(t *testing.T, r *Registry, name string) {
	t.Helper()
	for {
		if told := w.next(t); told != name && told != "" {
			continue
		}
		if _, err := r.Get(bounded30(t), name); errors.Is(err, registry.ErrNotFound) {
			return
		}
	}
}
