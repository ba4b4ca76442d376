package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is a real in-memory registry that can be cut off, and counts reads.
type engine struct {
	*memory.Registry
	away  atomic.Bool
	reads atomic.Int64
}

var errAway = errors.New("engine is away")

func (e *engine) Get(ctx context.Context, name string) ([]registry.Service, error) {
	e.reads.Add(1)
	if e.away.Load() {
		return nil, errAway
	}
	return e.Registry.Get(ctx, name)
}

func (e *engine) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if e.away.Load() {
		return errAway
	}
	return e.Registry.Register(ctx, s, ttl)
}

// start runs a Discovery over a fresh engine until the test ends.
func start(t testing.TB) (*Discovery, *engine) {
	t.Helper()
	e := &engine{Registry: memory.New()}
	d := New(e, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	t.Cleanup(func() { d.Close(); cancel(); running.Wait() })
	return d, e
}

func service(name string, ids ...string) registry.Service {
	s := registry.Service{Name: name, Version: "1"}
	for i, id := range ids {
		s.Nodes = append(s.Nodes, registry.Node{ID: id, Address: "127.0.0.1", Port: 9000 + i})
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok, for what has no event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never came true: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func nodes(d *Discovery, name string) string {
	s, err := d.Lookup(context.Background(), name)
	if errors.Is(err, registry.ErrNotFound) {
		return "gone"
	}
	if err != nil {
		return err.Error()
	}
	ids := ""
	for _, n := range s.Nodes {
		ids += n.ID
	}
	return ids
}

func TestLookupFindsWhatWasRegisteredAMomentAgo(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	for i := range 50 {
		name := fmt.Sprint("svc", i)
		if _, err := d.Lookup(ctx, name); !errors.Is(err, registry.ErrNotFound) {
			t.Fatalf("before: %v", err)
		}
		must(t, e.Register(ctx, service(name, "a"), 0)) // behind discovery's back
		if got := nodes(d, name); got != "a" {
			t.Fatalf("after: %s", got)
		}
	}
	if left := len(d.entries); left != 50 {
		t.Errorf("%d entries for 50 services", left)
	}
}

func TestUnknownNamesLeaveNothingBehind(t *testing.T) {
	d, _ := start(t)
	for i := range 1000 {
		if _, err := d.Lookup(t.Context(), fmt.Sprint("no", i)); !errors.Is(err, registry.ErrNotFound) {
			t.Fatal(err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.entries) != 0 {
		t.Errorf("%d entries are left", len(d.entries))
	}
}

func TestKnownServicesCostNoQuestion(t *testing.T) {
	d, e := start(t)
	must(t, d.Register(t.Context(), service("svc", "a"), 0))
	nodes(d, "svc")
	// The watch may still have reads in it that the registration caused.
	last := int64(-1)
	eventually(t, "reads come to rest", func() bool { was := last; last = e.reads.Load(); return was == last })
	before := e.reads.Load()
	for range 1000 {
		nodes(d, "svc")
	}
	if asked := e.reads.Load() - before; asked > 2 {
		t.Errorf("1000 look-ups asked the engine %d times", asked)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = d.Lookup(ctx, "svc") }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

func TestChangesArrive(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	must(t, e.Register(ctx, service("svc", "a"), 0))
	if got := nodes(d, "svc"); got != "a" {
		t.Fatal(got)
	}
	must(t, e.Register(ctx, service("svc", "a", "b"), 0))
	eventually(t, "b is seen", func() bool { return nodes(d, "svc") == "ab" })
	must(t, e.Deregister(ctx, service("svc", "a")))
	eventually(t, "a is gone", func() bool { return nodes(d, "svc") == "b" })
	must(t, e.Deregister(ctx, service("svc", "b")))
	eventually(t, "the service is gone", func() bool { return nodes(d, "svc") == "gone" })
}

func TestWhatIsRegisteredHereIsSeenAtOnce(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	must(t, d.Register(ctx, service("svc", "a"), 0))
	nodes(d, "svc")
	for range 20 {
		must(t, d.Register(ctx, service("svc", "b"), 0))
		if got := nodes(d, "svc"); got != "ab" {
			t.Fatalf("after registering: %s", got)
		}
		must(t, d.Withdraw(ctx, service("svc", "b")))
		if got := nodes(d, "svc"); got != "a" {
			t.Fatalf("after deregistering: %s", got)
		}
	}
}

func TestStaleBeatsEmpty(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	must(t, e.Register(ctx, service("svc", "a"), 0))
	nodes(d, "svc")
	e.away.Store(true)
	d.changed(registry.Event{}) // as after a broken watch
	reads := e.reads.Load()
	eventually(t, "the engine was asked in vain", func() bool { return e.reads.Load() > reads+1 })
	if got := nodes(d, "svc"); got != "a" {
		t.Errorf("with the engine away: %s", got)
	}
	var unavailable *EngineError
	if _, err := d.Lookup(ctx, "other"); !errors.As(err, &unavailable) {
		t.Errorf("an unknown service with the engine away: %v", err)
	}
	must(t, e.Registry.Register(ctx, service("svc", "b"), 0))
	e.away.Store(false)
	eventually(t, "everything comes back by itself", func() bool { return nodes(d, "svc") == "ab" })
}

// An engine that lost everything while it was away is told again what there
// is: until then calls go on.
func TestEmptyAfterAnAbsenceIsNotBelievedAtOnce(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	must(t, e.Register(ctx, service("back", "a"), 0))
	must(t, e.Register(ctx, service("removed", "a"), 0))
	nodes(d, "back")
	nodes(d, "removed")
	e.away.Store(true)
	d.changed(registry.Event{})
	reads := e.reads.Load()
	eventually(t, "the engine was asked in vain", func() bool { return e.reads.Load() > reads+1 })
	must(t, e.Deregister(ctx, service("back", "a")))
	must(t, e.Deregister(ctx, service("removed", "a")))
	e.away.Store(false)
	d.changed(registry.Event{})
	reads = e.reads.Load()
	eventually(t, "the empty engine was asked", func() bool { return e.reads.Load() > reads+4 })
	if got := nodes(d, "back"); got != "a" {
		t.Errorf("before it is registered again: %s", got)
	}
	must(t, e.Register(ctx, service("back", "b"), 0))
	eventually(t, "it is registered again", func() bool { return nodes(d, "back") == "b" })
	// From here on the engine is believed again, and who removes at once.
	must(t, e.Deregister(ctx, service("back", "b")))
	eventually(t, "it is gone", func() bool { return nodes(d, "back") == "gone" })
	must(t, d.Withdraw(ctx, service("removed", "a")))
	if got := nodes(d, "removed"); got != "gone" {
		t.Errorf("after its removal: %s", got)
	}
}

// Nobody need have looked at a service while the engine was away: that another
// question failed, or that somebody says so, is enough.
func TestAnAbsenceIsNoticedForAll(t *testing.T) {
	for name, notice := range map[string]func(*testing.T, *Discovery){
		"another question fails": func(t *testing.T, d *Discovery) {
			var unavailable *EngineError
			if _, err := d.Lookup(t.Context(), "other"); !errors.As(err, &unavailable) {
				t.Errorf("with the engine away: %v", err)
			}
		},
		"somebody says so": func(_ *testing.T, d *Discovery) { d.Away() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := &engine{Registry: memory.New()}
				d := New(e, slog.New(slog.DiscardHandler))
				defer d.Close()
				must(t, e.Register(t.Context(), service("svc", "a"), 0))
				nodes(d, "svc")
				e.away.Store(true)
				notice(t, d)
				must(t, e.Deregister(t.Context(), service("svc", "a")))
				e.away.Store(false)
				if s, err := d.Refresh(t.Context(), "svc"); err != nil || len(s.Nodes) != 1 {
					t.Errorf("right after the absence: %v, %v", s, err)
				}
				time.Sleep(doubtTime + time.Second)
				if got := nodes(d, "svc"); got != "gone" {
					t.Errorf("after %v: %s", doubtTime, got)
				}
			})
		})
	}
}

func TestDoubtEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Registry: memory.New()}
		d := New(e, slog.New(slog.DiscardHandler))
		defer d.Close()
		must(t, e.Register(t.Context(), service("svc", "a"), 0))
		nodes(d, "svc")
		must(t, e.Deregister(t.Context(), service("svc", "a")))
		d.changed(registry.Event{})
		time.Sleep(doubtTime - time.Second)
		if got := nodes(d, "svc"); got != "a" {
			t.Errorf("in doubt: %s", got)
		}
		time.Sleep(2 * time.Second)
		if got := nodes(d, "svc"); got != "gone" {
			t.Errorf("after %v: %s", doubtTime, got)
		}
	})
}

func TestNodesKeepTheirHistory(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	must(t, e.Register(ctx, service("svc", "a"), 0))
	before, err := d.Lookup(ctx, "svc")
	must(t, err)
	must(t, e.Register(ctx, service("svc", "a", "b"), 0))
	eventually(t, "b is seen", func() bool { return nodes(d, "svc") == "ab" })
	after, err := d.Lookup(ctx, "svc")
	must(t, err)
	if before.Nodes[0] != after.Nodes[0] {
		t.Error("an unchanged node lost its history")
	}
	moved := service("svc", "a")
	moved.Nodes[0].Port = 9999
	must(t, e.Register(ctx, moved, 0))
	eventually(t, "the new address is seen", func() bool {
		s, err := d.Lookup(ctx, "svc")
		return err == nil && s.Nodes[0].Addr == "127.0.0.1:9999"
	})
	now, err := d.Lookup(ctx, "svc")
	must(t, err)
	if now.Nodes[0] == before.Nodes[0] {
		t.Error("a node at another address is taken for the old one")
	}
}

func TestLookupsAreSafeTogether(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	var tasks sync.WaitGroup
	for i := range 4 {
		tasks.Go(func() {
			for j := range 100 {
				name := fmt.Sprint("svc", j%7)
				_ = e.Register(ctx, service(name, fmt.Sprint("n", i)), 0)
				_, _ = d.Lookup(ctx, name)
				_ = d.Withdraw(ctx, service(name, fmt.Sprint("n", i)))
			}
		})
	}
	tasks.Wait()
	for j := range 7 {
		name := fmt.Sprint("svc", j)
		eventually(t, name+" is gone", func() bool { return nodes(d, name) == "gone" })
	}
}

func TestAnnounce(t *testing.T) {
	d, e := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	s := service("app", "a")
	e.away.Store(true)
	running.Go(func() { d.Announce(ctx, s, time.Minute, 20*time.Second) })
	e.away.Store(false)
	eventually(t, "the application is registered once the engine is there", func() bool { return nodes(d, "app") == "a" })
	must(t, e.Deregister(ctx, s)) // the engine lost it
	eventually(t, "it is registered again long before the interval", func() bool {
		_, err := e.Registry.Get(ctx, "app")
		return err == nil
	})
	cancel()
	running.Wait()
	if got := nodes(d, "app"); got != "a" {
		t.Errorf("ending the announcement deregistered: %s", got)
	}
	must(t, d.Withdraw(t.Context(), s))
	if got := nodes(d, "app"); got != "gone" {
		t.Errorf("after Withdraw: %s", got)
	}
}

func TestWatchTellsEachChangeOnce(t *testing.T) {
	for _, only := range []string{"", "svc"} {
		t.Run("service="+only, func(t *testing.T) {
			d, e := start(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			must(t, e.Register(ctx, service("old", "x"), 0))

			live := make(chan struct{})
			changes := make(chan Change, 16)
			ended := make(chan error, 1)
			go func() {
				ended <- d.Watch(ctx, only, func() { close(live) }, func(c Change) error { changes <- c; return nil })
			}()
			<-live
			expect := func(action, ids string) {
				t.Helper()
				select {
				case c := <-changes:
					got := ""
					for _, n := range c.Service.Nodes {
						got += n.ID
					}
					if c.Action != action || c.Service.Name != "svc" || got != ids {
						t.Fatalf("got %s of %s with %q, want %s with %q", c.Action, c.Service.Name, got, action, ids)
					}
				case <-time.After(30 * time.Second):
					t.Fatalf("no %s came", action)
				}
			}
			must(t, e.Register(ctx, service("svc", "a"), 0))
			expect(Create, "a")
			must(t, e.Register(ctx, service("svc", "a"), 0)) // a renewal is no change
			must(t, e.Register(ctx, service("svc", "a", "b"), 0))
			expect(Update, "ab")
			must(t, e.Deregister(ctx, service("svc", "a")))
			expect(Update, "b")
			must(t, e.Deregister(ctx, service("svc", "b")))
			expect(Delete, "b")
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			if len(changes) > 0 {
				t.Errorf("one more change: %+v", <-changes)
			}
		})
	}
}

func TestWatchEndsWithItsReceiver(t *testing.T) {
	d, e := start(t)
	gone := errors.New("receiver is gone")
	err := d.Watch(t.Context(), "", func() { _ = e.Register(t.Context(), service("svc", "a"), 0) }, func(Change) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}
