package nats_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestListWhileRenewing lists while a node is renewed as fast as it goes: every
// service is there, whatever the server has been doing to the bucket meanwhile.
func TestListWhileRenewing(t *testing.T) {
	e := openEngine(t, t.TempDir())
	r, other := openRegistry(t, e), openRegistry(t, e)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("app%02d", i))
		register(t, r, names[i], 0)
	}
	register(t, r, "often", time.Minute)
	register(t, r, "new", 0) // the newest one, which a count that is too low cuts off
	names = append(names, "new", "often")
	ctx, stop := context.WithCancel(t.Context())
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for ctx.Err() == nil {
			if err := other.Register(ctx, service("often", "n"), time.Minute); err != nil && ctx.Err() == nil {
				t.Errorf("Register: %v", err)
			}
		}
	})
	defer renewing.Wait()
	defer stop()
	for range 150 {
		got, err := r.List(bounded(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, names) {
			missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(got, n) })
			t.Fatalf("%d of %d services are listed; %q are missing", len(got), len(names), missing)
		}
	}
}
