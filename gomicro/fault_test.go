package gomicro_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	microconsul "go-micro.dev/v5/registry/consul"

	"github.com/micro/sidecar/gomicro"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// faulty is go-micro's memory registry with the faults that others have.
type faulty struct {
	micro.Registry
	name    string
	stuck   chan struct{} // calls wait until it is closed; nil = they do not
	calls   atomic.Int64
	panics  atomic.Bool
	noWatch atomic.Bool
	deaf    atomic.Bool // its watch tells nothing
}

func (f *faulty) String() string { return f.name }

func (f *faulty) fail() {
	f.calls.Add(1)
	if f.stuck != nil {
		<-f.stuck
	}
	if f.panics.Load() {
		var tags []string
		_ = tags[0] // as go-micro's Consul code does with a tag "t"
	}
}

func (f *faulty) GetService(name string, o ...micro.GetOption) ([]*micro.Service, error) {
	f.fail()
	return f.Registry.GetService(name, o...)
}

func (f *faulty) Register(s *micro.Service, o ...micro.RegisterOption) error {
	f.fail()
	return f.Registry.Register(s, o...)
}

func (f *faulty) Watch(o ...micro.WatchOption) (micro.Watcher, error) {
	if f.noWatch.Load() {
		return nil, errors.New("expected a service name")
	}
	if f.deaf.Load() {
		return silent{make(chan struct{})}, nil
	}
	return f.Registry.Watch(o...)
}

// silent is a watch that tells nothing until it is stopped.
type silent struct{ stopped chan struct{} }

func (s silent) Next() (*micro.Result, error) { <-s.stopped; return nil, micro.ErrWatcherStopped }
func (s silent) Stop()                        { close(s.stopped) }

func one(name, id string) registry.Service {
	return registry.Service{Name: name, Version: "1", Nodes: []registry.Node{{ID: id, Address: "127.0.0.1", Port: 9091}}}
}

// Calls that never come back cost a bounded number of goroutines, and nobody
// waits longer than he wants to.
func TestStuckCalls(t *testing.T) {
	f := &faulty{Registry: micro.NewMemoryRegistry(), name: "stuck", stuck: make(chan struct{})}
	r := adapt(t, f)
	before := runtime.NumGoroutine()
	var callers sync.WaitGroup
	for range 500 {
		callers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := r.Get(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Get: %v", err)
			}
			if err := r.Register(ctx, one("x", "n"), 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Register: %v", err)
			}
		})
	}
	callers.Wait()
	if n := f.calls.Load(); n > 128 {
		t.Errorf("%d calls are stuck in go-micro", n)
	}
	if n := runtime.NumGoroutine() - before; n > 150 {
		t.Errorf("%d goroutines more than before", n)
	}
	close(f.stuck) // the engine answers at last: everything works again
	if err := r.Register(bounded(t), one("y", "n"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(bounded(t), "y"); err != nil {
		t.Error(err)
	}
	// What nobody waited for any more was not done behind everybody's back.
	if _, err := r.Get(bounded(t), "x"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a registration that was given up was made: %v", err)
	}
}

func TestPanicsAreErrors(t *testing.T) {
	f := &faulty{Registry: micro.NewMemoryRegistry(), name: "faulty"}
	r := adapt(t, f)
	if err := r.Register(bounded(t), one("x", "n"), 0); err != nil {
		t.Fatal(err)
	}
	f.panics.Store(true)
	if _, err := r.Get(bounded(t), "x"); err == nil || errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("Get: %v", err)
	}
	if err := r.Register(bounded(t), one("x", "m"), 0); err == nil {
		t.Error("Register: no error")
	}
	f.panics.Store(false)
	if services, err := r.Get(bounded(t), "x"); err != nil || len(services) != 1 {
		t.Errorf("Get afterwards: %v, %v", services, err)
	}
}

// A watch that cannot begin, or that tells nothing, is one that looks.
func TestWatchesAreHints(t *testing.T) {
	for name, broken := range map[string]*faulty{
		"it cannot begin":  {name: "faulty"},
		"it tells nothing": {name: "faulty"},
		"it is not used":   {name: "consul"},
	} {
		t.Run(name, func(t *testing.T) {
			theirs := micro.NewMemoryRegistry()
			broken.Registry = theirs
			broken.noWatch.Store(name == "it cannot begin")
			broken.deaf.Store(name == "it tells nothing")
			r := adapt(t, broken)
			events := make(chan registry.Event, 1000)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- r.Watch(ctx, func(e registry.Event) { events <- e }) }()
			<-events // it is live
			// Somebody else registers: go-micro alone could tell.
			if err := theirs.Register(&micro.Service{Name: "x", Nodes: []*micro.Node{{Id: "n", Address: "127.0.0.1:1"}}}); err != nil {
				t.Fatal(err)
			}
			for deadline := time.After(30 * time.Second); ; {
				select {
				case e := <-events:
					if e.Name != "" && e.Name != "x" {
						t.Fatalf("event %+v", e)
					}
				case <-deadline:
					t.Fatal("nobody looked")
				}
				if _, err := r.Get(bounded(t), "x"); err == nil {
					break
				}
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Watch ended with %v", err)
			}
		})
	}
}

// Nodes that nobody could call are passed over, and only they.
func TestNodesThatNobodyCanCall(t *testing.T) {
	theirs := micro.NewMemoryRegistry()
	r := adapt(t, theirs)
	if err := theirs.Register(&micro.Service{Name: "x", Nodes: []*micro.Node{
		{Id: "good", Address: "127.0.0.1:9091"}, {Id: "none"}, {Id: "zero", Address: "127.0.0.1:0"}, {Id: "high", Address: "h:70000"},
		{Id: "text", Address: "not an address"}, {Id: "", Address: "127.0.0.1:9"}, {Id: "unix", Address: "unix:relative"}, {Id: "nohost", Address: ":80"},
	}}); err != nil {
		t.Fatal(err)
	}
	services, err := r.Get(bounded(t), "x")
	if err != nil || len(services) != 1 || len(services[0].Nodes) != 1 || services[0].Nodes[0].ID != "good" {
		t.Errorf("Get: %+v, %v", services, err)
	}
}

// On a real Consul, a service of somebody else's with a tag that go-micro
// panics on spoils itself alone.
func TestConsulTagsThatGoMicroPanicsOn(t *testing.T) {
	s := testserver.Consul(t)
	r := adapt(t, microconsul.NewConsulRegistry(micro.Addrs(s.Addr)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan registry.Event, 1000)
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(ctx, func(e registry.Event) { events <- e }) }()
	for _, tag := range []string{"t", "e", "v"} {
		put(t, "http://"+s.Addr+"/v1/agent/service/register", `{"Name":"bad-`+tag+`","Address":"127.0.0.1","Port":80,"Tags":["`+tag+`"]}`)
		if services, err := r.Get(bounded(t), "bad-"+tag); tag != "v" && err == nil {
			t.Errorf("with the tag %q: %+v; go-micro does not panic any more, and this test may go", tag, services)
		}
	}
	if err := r.Register(bounded(t), one("good", "good-1"), time.Minute); err != nil {
		t.Fatal(err)
	}
	for range 5 { // several looks
		<-events
	}
	names, err := r.List(bounded(t))
	if err != nil || !slices.Contains(names, "good") || !slices.Contains(names, "bad-t") {
		t.Errorf("List: %q, %v", names, err)
	}
	if services, err := r.Get(bounded(t), "good"); err != nil || len(services) != 1 {
		t.Errorf("Get: %+v, %v", services, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
}

func TestConsulIDsAreNotStolen(t *testing.T) {
	s := testserver.Consul(t)
	r := adapt(t, microconsul.NewConsulRegistry(micro.Addrs(s.Addr)))
	if err := r.Register(bounded(t), one("a", "1"), 0); err != nil {
		t.Fatal(err)
	}
	if err := r.Register(bounded(t), one("b", "1"), 0); err == nil {
		t.Error("the node of one service was registered over that of another")
	}
	if err := r.Deregister(bounded(t), one("b", "1")); err != nil {
		t.Error(err)
	}
	if _, err := r.Get(bounded(t), "a"); err != nil {
		t.Errorf("after the node of another service was removed: %v", err)
	}
}

func put(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

var _ registry.Registry = (*gomicro.RegistryAdapter)(nil)
