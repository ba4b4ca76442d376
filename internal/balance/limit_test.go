package balance

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

func refusedBy(err error) bool {
	var e *httpmsg.Error
	return errors.As(err, &e) && e.Status == 429 && e.RetryAfter == time.Second
}

// A quarter may queue for 100 ms, the next is refused at once, and who leaves
// lets in the one that has waited longest.
func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimit(8)
		for range 8 {
			if err := l.Enter(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- l.Enter(t.Context()) }()
		}
		synctest.Wait()
		if state := l.State(); state != (LimitState{Max: 8, Active: 8, Waiting: 2}) {
			t.Errorf("%+v", state)
		}
		if err := l.Enter(t.Context()); !refusedBy(err) {
			t.Errorf("one too many: %v", err)
		}
		l.Leave()
		if err := <-results; err != nil {
			t.Errorf("one left, and %v", err)
		}
		begun := time.Now()
		if err := <-results; !refusedBy(err) || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { results <- l.Enter(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("its client left: %v", err)
		}
		for range 8 {
			l.Leave()
		}
		if state := l.State(); state != (LimitState{Max: 8, Refused: 2}) {
			t.Errorf("%+v", state)
		}
	})
}

// However they come, wait and give up: never more than max are in, and in the
// end nobody is.
func TestLimitUnderPressure(t *testing.T) {
	for _, size := range []int{1, 2, 7} {
		l := NewLimit(size)
		var in, passed, refused atomic.Int64
		var all sync.WaitGroup
		for worker := range 16 {
			all.Go(func() {
				for i := range 500 {
					ctx, cancel := context.WithCancel(t.Context())
					if (i+worker)%3 == 0 {
						go cancel()
					}
					if l.Enter(ctx) == nil {
						if n := in.Add(1); n > int64(size) {
							t.Errorf("%d are in, %d may be", n, size)
						}
						passed.Add(1)
						in.Add(-1)
						l.Leave()
					} else {
						refused.Add(1)
					}
					cancel()
				}
			})
		}
		all.Wait()
		if state := l.State(); state.Active != 0 || state.Waiting != 0 || len(l.turns) != 0 || passed.Load() == 0 {
			t.Errorf("size %d: %+v, %d turns left, %d passed, %d refused", size, state, len(l.turns), passed.Load(), refused.Load())
		}
	}
}

// Requests over the limit are refused by the balancer; those that wait for an
// answer count.
func TestTheBalancersLimit(t *testing.T) {
	b, s := &Balancer{Pick: P2C, Limit: NewLimit(1)}, service(1)
	err := b.Do(t.Context(), s, Request{}, func(Try) Result {
		queued := make(chan error)
		go func() { queued <- b.Do(t.Context(), s, Request{}, func(Try) Result { return Result{} }) }()
		if err := <-queued; !refusedBy(err) {
			t.Errorf("got %v", err)
		}
		return Result{}
	})
	if err != nil || b.Limit.State().Active != 0 {
		t.Errorf("%v, %+v", err, b.Limit.State())
	}
	if err := b.Do(t.Context(), s, Request{}, func(Try) Result { return Result{} }); err != nil {
		t.Error(err)
	}
}

func BenchmarkLimit(b *testing.B) {
	l := NewLimit(1000)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if l.Enter(context.Background()) == nil {
				l.Leave()
			}
		}
	})
}
