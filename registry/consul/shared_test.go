package consul

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// An agent takes 200 connections from one machine: more services than that are
// watched, and each change of each is seen.
func TestManyNames(t *testing.T) {
	const names = 300
	server := testserver.Consul(t)
	r, writer := open(t, server), open(t, server)
	name := func(i int) string { return fmt.Sprint("many-", i) }
	put := func(i, port int, ttl time.Duration) {
		t.Helper()
		s := greeter(name(i), name(i), port)
		if err := writer.Register(t.Context(), s, ttl); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	live := map[int]bool{}
	told := map[int]bool{} // since it was last forgotten
	has := func(set map[int]bool, i int) bool {
		mu.Lock()
		defer mu.Unlock()
		return set[i]
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	var leave [names]context.CancelFunc
	for i := range names {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		leave[i] = cancel
		watching.Go(func() {
			_ = r.WatchName(ctx, name(i), func(e registry.Event) { // it ends with ctx alone
				mu.Lock()
				defer mu.Unlock()
				live[i], told[i] = live[i] || e.Name == "", told[i] || e.Name != ""
			})
		})
	}
	eventually(t, "all watches", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(live) == names
	})
	if _, err := r.Get(t.Context(), name(0)); err == nil {
		t.Error("it was never registered")
	} else if _, refused := statusOf(err); refused {
		t.Error(err)
	}
	changed := func(what string, of []int, change func(i int)) {
		t.Helper()
		for _, i := range of {
			mu.Lock()
			told[i] = false
			mu.Unlock()
			change(i)
			eventually(t, fmt.Sprintf("%s of %s", what, name(i)), func() bool { return has(told, i) })
		}
	}
	some := []int{0, 1, names / 2, names - 2, names - 1} // with and without a query of their own
	changed("the registration", some, func(i int) { put(i, 1, 0) })
	changed("another address without a check", some, func(i int) { put(i, 2, 0) })
	changed("another one with a check", some, func(i int) { put(i, 3, time.Minute) })
	changed("the end", some, func(i int) {
		if err := writer.Deregister(t.Context(), greeter(name(i), name(i), 3)); err != nil {
			t.Fatal(err)
		}
	})
	for i := range names - 1 { // the last one gets a query of its own
		leave[i]()
	}
	eventually(t, "the watch of all to end", func() bool {
		r.shared.mu.Lock()
		defer r.shared.mu.Unlock()
		return r.shared.running == nil
	})
	changed("the registration", []int{names - 1}, func(i int) { put(i, 4, 0) })
}

// However many listen to everything, the agent sees two queries.
func TestManyWatches(t *testing.T) {
	r := open(t, testserver.Consul(t))
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	var mu sync.Mutex
	zero, named := map[int]bool{}, map[int]bool{}
	for i := range 250 {
		watching.Go(func() {
			_ = r.Watch(ctx, func(e registry.Event) { // it ends with ctx alone
				mu.Lock()
				defer mu.Unlock()
				switch e.Name {
				case "":
					zero[i] = true
				case "greeter":
					named[i] = true
				}
			})
		})
	}
	all := func(set map[int]bool) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(set) == 250
		}
	}
	eventually(t, "all watches", all(zero))
	register(t, r, greeter("greeter", "n", 1), time.Minute)
	eventually(t, "the registration at all watches", all(named))
}
