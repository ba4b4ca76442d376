package natsquery

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	micronats "go-micro.dev/v5/registry/nats"
	"go.uber.org/goleak"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, s *testserver.NATSServer) *Registry {
	t.Helper()
	u, err := engineurl.Parse("nats", s.Addr+"?layout=gomicro")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(u, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// theirs is go-micro's own registry, closed behind its back.
func theirs(t *testing.T, s *testserver.NATSServer) micro.Registry {
	t.Helper()
	options := gonats.GetDefaultOptions()
	options.Servers = []string{"nats://" + s.Addr}
	conn := make(chan *gonats.Conn, 1)
	options.ConnectedCB = func(c *gonats.Conn) { conn <- c }
	r := micronats.NewNatsRegistry(micronats.NatsOptions(options))
	t.Cleanup(func() {
		select {
		case c := <-conn:
			c.Close()
		case <-time.After(30 * time.Second):
			t.Error("go-micro has not connected")
		}
	})
	return r
}

func bounded(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// within polls for what comes from elsewhere.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func service(name, id string) registry.Service {
	return registry.Service{Name: name, Version: "1", Nodes: []registry.Node{{ID: id, Address: "127.0.0.1", Port: 9091}}}
}

func TestSuite(t *testing.T) {
	s := testserver.NATS(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry { return open(t, s) })
}

func TestGoMicroFindsOurs(t *testing.T) {
	s := testserver.NATS(t)
	r, peer := open(t, s), theirs(t, s)
	watcher, err := peer.Watch()
	if err != nil {
		t.Fatal(err)
	}
	ours := registry.Service{
		Name: "go.micro.srv.greeter", Version: "1.2.3", Endpoints: []registry.Endpoint{{Name: "Say.Hello"}},
		Nodes: []registry.Node{
			{ID: "greeter-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp"}},
			{ID: "greeter-2", Address: "::1", Port: 9092},
		},
	}
	// A watch of theirs begins when the server knows of it: told again and
	// again, it hears.
	told := make(chan *micro.Result, 100)
	go func() {
		defer close(told)
		for {
			result, err := watcher.Next()
			if err != nil {
				return
			}
			told <- result
		}
	}()
	within(t, "go-micro to hear of it", func() bool {
		if err := r.Register(bounded(t), ours, time.Minute); err != nil {
			t.Fatal(err)
		}
		select {
		case news := <-told:
			return news.Action == "create" && news.Service.Name == ours.Name
		case <-time.After(100 * time.Millisecond):
			return false
		}
	})
	have, err := peer.GetService(ours.Name)
	if err != nil || len(have) != 1 || len(have[0].Nodes) != 2 || have[0].Version != "1.2.3" || have[0].Endpoints[0].Name != "Say.Hello" {
		t.Fatalf("go-micro finds %+v, %v", have, err)
	}
	slices.SortFunc(have[0].Nodes, func(a, b *micro.Node) int { return strings.Compare(a.Id, b.Id) })
	if a, b := have[0].Nodes[0].Address, have[0].Nodes[1].Address; a != "127.0.0.1:9091" || b != "[::1]:9092" {
		t.Errorf("at %s and %s", a, b)
	}
	if all, err := peer.ListServices(); err != nil || len(all) != 1 {
		t.Errorf("go-micro lists %+v, %v", all, err)
	}
	if err := r.Deregister(bounded(t), ours); err != nil {
		t.Fatal(err)
	}
	if have, err := peer.GetService(ours.Name); err != nil || len(have) > 0 {
		t.Errorf("go-micro still finds %+v, %v", have, err)
	}
	watcher.Stop()
	for range told { // until it has ended
	}
}

func TestWeFindGoMicros(t *testing.T) {
	s := testserver.NATS(t)
	peer := theirs(t, s)
	n := &micro.Node{Id: "n1", Address: "127.0.0.1:9091", Metadata: map[string]string{"protocol": "mucp"}}
	before := &micro.Service{Name: "before", Version: "latest", Nodes: []*micro.Node{n}}
	if err := peer.Register(before); err != nil {
		t.Fatal(err)
	}
	r := open(t, s)
	want := []registry.Service{{
		Name: "before", Version: "latest", Endpoints: []registry.Endpoint{},
		Nodes: []registry.Node{{ID: "n1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp"}}},
	}}
	have, err := r.Get(bounded(t), "before")
	if err == nil && len(have) == 1 {
		have[0].Endpoints = []registry.Endpoint{}
	}
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v, %v\nwant %+v", have, err, want)
	}
	w := follow(t, r)
	after := &micro.Service{Name: "after", Version: "latest", Nodes: []*micro.Node{n}}
	if err := peer.Register(after); err != nil {
		t.Fatal(err)
	}
	within(t, "news of a service", func() bool { return w.told("after") > 0 })
	if _, err := r.Get(bounded(t), "after"); err != nil {
		t.Error(err)
	}
	if err := peer.Deregister(after); err != nil {
		t.Fatal(err)
	}
	if err := peer.Deregister(before); err != nil { // or it would leave a goroutine
		t.Fatal(err)
	}
	within(t, "news of its end", func() bool { return w.told("after") > 1 })
	if _, err := r.Get(bounded(t), "after"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
}

// watched counts events by name.
type watched struct {
	mu    sync.Mutex
	count map[string]int
}

func (w *watched) told(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count[name]
}

func follow(t *testing.T, r *Registry) *watched {
	t.Helper()
	w := &watched{count: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- r.Watch(ctx, func(e registry.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.count[e.Name]++
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	})
	within(t, "a live watch", func() bool { return w.told("") > 0 })
	return w
}

// Who died without a word is missed, and who lives is not, also across a
// restart of the server.
func TestTheDeadAreMissed(t *testing.T) {
	s := testserver.NATS(t)
	r, other := open(t, s), open(t, s)
	w := follow(t, r)
	if err := other.Register(bounded(t), service("alive", "n"), time.Hour); err != nil {
		t.Fatal(err)
	}
	dead := open(t, s)
	if err := dead.Register(bounded(t), service("dead", "n"), time.Hour); err != nil {
		t.Fatal(err)
	}
	within(t, "both", func() bool { return w.told("alive") > 0 && w.told("dead") > 0 })
	s.Stop()
	s.Start()
	within(t, "a live watch after the restart", func() bool { return w.told("") > 1 })
	for _, name := range []string{"alive", "dead"} {
		if _, err := r.Get(bounded(t), name); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
	_ = dead.Close()
	begun := time.Now()
	within(t, "the dead to be missed", func() bool {
		_, err := r.Get(bounded(t), "dead")
		return errors.Is(err, registry.ErrNotFound)
	})
	t.Logf("missed after %v", time.Since(begun))
	if _, err := r.Get(bounded(t), "alive"); err != nil {
		t.Errorf("the living: %v", err)
	}
	// A sidecar removes what another one registered.
	if err := r.Deregister(bounded(t), service("alive", "n")); err != nil {
		t.Fatal(err)
	}
	within(t, "the other to know", func() bool {
		_, err := other.Get(bounded(t), "alive")
		return errors.Is(err, registry.ErrNotFound)
	})
}

func TestNonsense(t *testing.T) {
	s := testserver.NATS(t)
	r := open(t, s)
	var out testserver.Output
	w := follow(t, r)
	r.odd = complain.New(slog.New(slog.NewTextHandler(&out, nil)))
	conn, err := gonats.Connect("nats://" + s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{
		"", "{", "null", "[]", `{"action":"create"}`, `{"action":"create","service":{"name":""}}`, `{"action":"create","service":{"name":"a","nodes":[null]}}`,
		`{"action":"create","service":{"name":"a","nodes":[{"id":"n","address":"a:0"}]}}`, `{"action":"delete","service":{"name":"a","nodes":[null]}}`,
		`{"action":"create","service":{"name":"a","nodes":[{"id":"n","address":""}]}}`, `{"action":"get"}`, `{"action":"get","service":null}`,
		strings.Repeat("x", 1<<20),
	} {
		for _, subject := range []string{watchSubject, querySubject} {
			if err := conn.PublishRequest(subject, "nobody", []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	good := `{"action":"create","service":{"name":"good","nodes":[{"id":"n","address":"a:1"},{"id":"bad","address":"a:70000"}]}}`
	if err := conn.Publish(watchSubject, []byte(good)); err != nil {
		t.Fatal(err)
	}
	within(t, "the good one", func() bool { return w.told("good") > 0 })
	if names, err := r.List(bounded(t)); err != nil || !slices.Equal(names, []string{"good"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if have, err := r.Get(bounded(t), "good"); err != nil || len(have[0].Nodes) != 1 {
		t.Errorf("Get: %+v, %v", have, err)
	}
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log", n)
	}
}

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string]string{
		"h:1?layout=gomicro":          "",
		"h:1?layout=gomicro&bucket=x": `unknown parameter "bucket"`,
		"http://h:1?layout=gomicro":   "expected nats or tls",
		"h:1?layout=gomicro&tokn=x":   "did you mean token?",
	} {
		u, err := engineurl.Parse("nats", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckAddress(u); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
