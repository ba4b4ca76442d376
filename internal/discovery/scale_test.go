package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// many registers n services of ten nodes each and uses each once.
func many(t testing.TB, n int) (*Discovery, []string) {
	t.Helper()
	d, e := start(t)
	ids := make([]string, 10)
	for i := range ids {
		ids[i] = fmt.Sprint("node-", i)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("go.micro.srv.service-", i)
		must(t, e.Register(context.Background(), service(names[i], ids...), 0))
		_, err := d.Lookup(context.Background(), names[i])
		must(t, err)
	}
	return d, names
}

func TestLookupOfOneAmongManyDoesNotAllocate(t *testing.T) {
	d, names := many(t, 2000)
	ctx, i := t.Context(), 0
	n := testing.AllocsPerRun(5000, func() {
		s, err := d.Lookup(ctx, names[i%len(names)])
		if err != nil || s.Name != names[i%len(names)] || len(s.Nodes) != 10 {
			t.Fatalf("got %+v, %v", s, err)
		}
		i++
	})
	if n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
}

// BenchmarkLookup looks up the same service among few and many, and all in
// turn, which also shows what the processor's caches make of it.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		d, names := many(b, n)
		for what, used := range map[string][]string{"one": names[:1], "each": names} {
			b.Run(fmt.Sprintf("services=%d/%s", n, what), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if _, err := d.Lookup(b.Context(), used[i%len(used)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// What balancing keeps with a snapshot fits it, and outlives it.
func TestSnapshotsCarryOn(t *testing.T) {
	d, e := start(t)
	ctx := t.Context()
	must(t, e.Register(ctx, service("svc", "c", "a"), 0))
	before, err := d.Lookup(ctx, "svc")
	must(t, err)
	before.Turn.Store(before.Nodes[1])
	must(t, d.Register(ctx, service("svc", "b"), 0))
	after, err := d.Lookup(ctx, "svc")
	must(t, err)
	if after == before || after.Account != before.Account || after.Turn.Load().ID != "c" {
		t.Errorf("round robin begins again: %+v, then %+v", before, after)
	}
	for _, s := range []*Service{before, after} {
		if len(s.Hashes) != len(s.Nodes) || !slices.IsSortedFunc(s.Nodes, byID) {
			t.Errorf("%d hashes of %d nodes", len(s.Hashes), len(s.Nodes))
		}
		for i, n := range s.Nodes {
			if s.Hashes[i] != Hash(n.ID) {
				t.Errorf("node %s has another's hash", n.ID)
			}
		}
	}
	must(t, d.Withdraw(ctx, registry.Service{Name: "svc", Nodes: after.Versions[0].Nodes}))
	must(t, d.Register(ctx, service("svc", "a"), 0))
	again, err := d.Lookup(ctx, "svc")
	must(t, err)
	if again.Account == before.Account {
		t.Error("what is kept with a service outlives it")
	}
}

// A change whose hint was lost is found without one, and what is in use is not
// all read at once.
func TestEverythingInUseIsReadAgainLittleByLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{Registry: memory.New()}
		d := New(hearsNothing{e}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer d.Close()
		defer cancel()
		const services = 100
		for i := range services {
			must(t, e.Register(ctx, service(fmt.Sprint("svc", i), "a"), 0))
			_, err := d.Lookup(ctx, fmt.Sprint("svc", i))
			must(t, err)
		}
		go d.Run(ctx)
		synctest.Wait()
		before := e.reads.Load()
		for i := range services {
			must(t, e.Register(ctx, service(fmt.Sprint("svc", i), "b"), 0)) // behind discovery's back
		}
		for range 600 {
			last := e.reads.Load()
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			if n := e.reads.Load() - last; n > 3 {
				t.Fatalf("%d reads in 100ms", n)
			}
		}
		if n := e.reads.Load() - before; n < services {
			t.Errorf("%d reads in a minute, %d services", n, services)
		}
		for i := range services {
			if got := nodes(d, fmt.Sprint("svc", i)); got != "ab" {
				t.Fatalf("svc%d has the nodes %q", i, got)
			}
		}
	})
}

// hearsNothing is a registry that tells of no change.
type hearsNothing struct{ *engine }

func (hearsNothing) Watch(ctx context.Context, _ func(registry.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}
