package nats_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine/enginetest"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/nats"
)

// within polls until ok holds.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func service(name, id string) registry.Service {
	return registry.Service{Name: name, Version: "1", Nodes: []registry.Node{{ID: id, Address: "127.0.0.1", Port: 1}}}
}

func register(t testing.TB, r *nats.Registry, name string, ttl time.Duration) {
	t.Helper()
	if err := r.Register(bounded(t, 30*time.Second), service(name, "n"), ttl); err != nil {
		t.Fatal(err)
	}
}

// watched records what a watch reports.
type watched struct {
	mu     sync.Mutex
	events []registry.Event
	ended  chan error
}

func watch(t testing.TB, r *nats.Registry) *watched {
	t.Helper()
	w := &watched{ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		w.ended <- r.Watch(ctx, func(e registry.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		})
		close(w.ended)
	}()
	t.Cleanup(func() {
		cancel()
		for range w.ended {
		}
	})
	within(t, 30*time.Second, "the watch is live", func() bool { return w.zeros() == 1 })
	return w
}

func (w *watched) all() []registry.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// zeros counts the zero events.
func (w *watched) zeros() (n int) {
	for _, e := range w.all() {
		if e.Name == "" {
			n++
		}
	}
	return n
}

// nodes is what the last event about a service tells, -1 when there is none.
func (w *watched) nodes(name string) int {
	n := -1
	for _, e := range w.all() {
		if e.Name == name {
			n = 0
			for _, s := range e.Services {
				n += len(s.Nodes)
			}
		}
	}
	return n
}

func TestTakeOver(t *testing.T) {
	dir := t.TempDir()
	host := enginetest.Start(t, dir, "")
	r := openRegistry(t, openEngine(t, dir))
	w := watch(t, r)
	acked := map[string]bool{}
	for i := range 200 {
		name := fmt.Sprintf("s%03d", i)
		register(t, r, name, time.Duration(i%2)*time.Minute)
		acked[name] = true
	}
	killed := time.AfterFunc(20*time.Millisecond, host.Kill)
	defer killed.Stop()
	var longest time.Duration
	for i, end := 0, time.Now().Add(time.Second); time.Now().Before(end); i++ {
		start, name := time.Now(), fmt.Sprintf("load%d", i)
		if err := r.Register(bounded(t, 30*time.Second), service(name, "n"), 0); err != nil {
			t.Fatalf("Register while the host is killed: %v", err)
		}
		acked[name] = true
		longest = max(longest, time.Since(start))
	}
	t.Logf("the longest registration took %v", longest)
	within(t, 30*time.Second, "the watch is live again", func() bool { return w.zeros() >= 2 })
	have, err := r.List(bounded(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if len(have) != len(acked) {
		t.Errorf("%d services, want the %d that were acknowledged", len(have), len(acked))
	}
	register(t, r, "after", 0)
	within(t, 30*time.Second, "the watch reports what came after", func() bool { return w.nodes("after") == 1 })
}

func TestExpiryWithoutTheServer(t *testing.T) {
	e := openEngine(t, t.TempDir())
	r := openRegistry(t, e)
	w := watch(t, r)
	deadline := time.Now().Add(500 * time.Millisecond)
	put(t, e.RegistryConn(), "old.n", fmt.Sprintf( // without a TTL of the server's
		`{"format":1,"deadline":%d,"name":"old","node":{"id":"n","address":"a","port":1}}`, deadline.UnixMilli()))
	within(t, 30*time.Second, "it is there", func() bool { return w.nodes("old") == 1 })
	within(t, 30*time.Second, "it is reported as gone", func() bool { return w.nodes("old") == 0 })
	if late := time.Since(deadline); late < 0 || late > time.Second {
		t.Errorf("reported %v after its deadline", late)
	}
	if _, err := r.Get(t.Context(), "old"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if names, err := r.List(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("List: %q, %v", names, err)
	}
	if last := w.all()[len(w.all())-1]; last.Services == nil {
		t.Error("the last event's services are nil, want empty: it is gone")
	}
}

func TestServerCollects(t *testing.T) {
	e := openEngine(t, t.TempDir())
	r := openRegistry(t, e)
	register(t, r, "short", 1500*time.Millisecond)
	js, err := jetstream.New(e.RegistryConn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_"+nats.DefaultBucket)
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetLastMsgForSubject(t.Context(), "$KV."+nats.DefaultBucket+".short.n")
	if err != nil {
		t.Fatal(err)
	}
	if have := m.Header.Get("Nats-TTL"); have != "7s" {
		t.Errorf("the server's TTL is %q, want 7s: past the deadline, in whole seconds", have)
	}
	if err := r.Deregister(t.Context(), service("short", "n")); err != nil {
		t.Fatal(err)
	}
	if m, err = stream.GetLastMsgForSubject(t.Context(), m.Subject); err != nil || m.Header.Get("Nats-TTL") == "" {
		t.Errorf("the mark of a removed entry stays for ever: %v, %v", m, err)
	}
}

func TestRenewalIsNoEvent(t *testing.T) {
	r := openRegistry(t, openEngine(t, t.TempDir()))
	w := watch(t, r)
	for range 10 {
		register(t, r, "same", time.Minute)
	}
	register(t, r, "end", 0)
	within(t, 30*time.Second, "the last one", func() bool { return w.nodes("end") == 1 })
	if events := w.all(); len(events) != 3 {
		t.Errorf("%d events, want 3: %v", len(events), events)
	}
}

func TestNonsense(t *testing.T) {
	e := openEngine(t, t.TempDir())
	var out testserver.Output
	r := openLogged(t, e, slog.New(slog.NewTextHandler(&out, nil)))
	w := watch(t, r)
	for key, value := range map[string]string{
		"a.n": "", "b.n": "{", "c.n": "null", "d.n": `{"format":2,"name":"d","node":{"id":"n"}}`,
		"e.n": `{"format":1,"name":"other","node":{"id":"n"},"metadata":7}`, "short": `{"format":1,"name":"short","node":{"id":""}}`,
		"f.n.m": `{"format":1}`, "=h.n": `{"format":1,"name":"x","node":{"id":"n"}}`, "g/h.=zz": `{"format":1}`,
		"p0.n": `{"format":1,"name":"p0","node":{"id":"n","address":"a","port":0}}`, "p7.n": `{"format":1,"name":"p7","node":{"id":"n","address":"a","port":70000}}`,
		"none.n": `{"format":1,"name":"none","node":{"id":"n","port":1}}`, "blank.n": `{"format":1,"name":"blank","node":{"id":"n","address":"a b","port":1}}`,
		"path.n": `{"format":1,"name":"path","node":{"id":"n","address":"unix:x"}}`, "tags.n": `[` + strings.Repeat(`"t",`, 100_000) + `""]`,
		"big.n": `{"format":1,"name":"big","version":"` + strings.Repeat("v", 1<<20) + `","node":{"id":"n"}}`,
	} {
		put(t, e.RegistryConn(), key, value)
	}
	register(t, r, "good", 0)
	within(t, 30*time.Second, "the good one", func() bool { return w.nodes("good") == 1 })
	if names, err := r.List(t.Context()); err != nil || !slices.Equal(names, []string{"good"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if n := len(w.all()); n != 2 {
		t.Errorf("%d events, want 2: %v", n, w.all())
	}
	put(t, e.RegistryConn(), "good.n", "overwritten")
	within(t, 30*time.Second, "it is gone", func() bool { return w.nodes("good") == 0 })
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log:\n%.1000s", n, out.String())
	}
}

func TestTooLarge(t *testing.T) {
	r := openRegistry(t, openEngine(t, t.TempDir()))
	s := service("large", "n")
	s.Metadata = map[string]string{"k": strings.Repeat("v", 1<<20)}
	if err := r.Register(t.Context(), s, 0); err == nil || !strings.Contains(err.Error(), "at most 1048576 bytes") {
		t.Errorf("Register: %v", err)
	}
}

func TestBucketRemoved(t *testing.T) {
	e := openEngine(t, t.TempDir())
	r := openRegistry(t, e)
	register(t, r, "before", 0)
	w := watch(t, r)
	js, err := jetstream.New(e.RegistryConn())
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), nats.DefaultBucket); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Get(bounded(t, 30*time.Second), "before"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	register(t, r, "after", 0)
	if _, err := r.Get(bounded(t, 30*time.Second), "after"); err != nil {
		t.Errorf("Get: %v", err)
	}
	select {
	case err := <-w.ended:
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("the watch ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the watch of a bucket that is gone goes on")
	}
}

func TestOptions(t *testing.T) {
	e := openEngine(t, t.TempDir())
	if _, err := nats.New(t.Context(), e.RegistryConn(), nats.Options{Bucket: "a b"}); err == nil {
		t.Error("a bad name of a bucket: no error")
	}
	other, err := nats.New(t.Context(), e.RegistryConn(), nats.Options{Bucket: "other"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	register(t, other, "there", 0)
	if _, err := openRegistry(t, e).Get(t.Context(), "there"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Get in another bucket: %v", err)
	}
}
