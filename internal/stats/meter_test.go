package stats

import (
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketsHoldWhatIsNotLongerThanTheirEnd(t *testing.T) {
	if bounds[0] != 10*time.Microsecond || bounds[len(bounds)-1] != 100*time.Second || !slices.IsSorted(bounds[:]) {
		t.Fatalf("bounds are %v", bounds)
	}
	for i, bound := range bounds {
		if bucket(bound) != i || bucket(bound+1) != i+1 || bucket(bound-1) > i {
			t.Errorf("%v: bucket %d, a moment later %d", bound, bucket(bound), bucket(bound+1))
		}
	}
	if bucket(math.MaxInt64) != Buckets-1 || bucket(1) != 0 {
		t.Error("what is very long or very short has no bucket")
	}
}

// Quantiles are right up to the width of a bucket.
func TestQuantilesAreNear(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := rapid.SliceOfN(rapid.Int64Range(int64(20*time.Microsecond), int64(90*time.Second)), 1, 300).Draw(t, "took")
		var h histogram
		for _, d := range took {
			h.add(time.Duration(d))
		}
		l := Latencies{Sum: time.Duration(h.sum.Load())}
		for i := range h.buckets {
			l.Buckets[i] = h.buckets[i].Load()
		}
		if l.Count() != uint64(len(took)) {
			t.Fatalf("%d counted of %d", l.Count(), len(took))
		}
		slices.Sort(took)
		for q, got := range map[float64]time.Duration{0.5: l.Quantiles().P50, 0.95: l.Quantiles().P95, 0.99: l.Quantiles().P99} {
			want := time.Duration(took[max(int(math.Ceil(q*float64(len(took))))-1, 0)])
			if ratio := float64(got) / float64(want); ratio < 0.74 || ratio > 1.35 {
				t.Errorf("quantile %v of %d: %v, truly %v", q, len(took), got, want)
			}
		}
	})
}

func TestQuantilesOfNothing(t *testing.T) {
	var none Latencies
	if none.Quantiles() != (Quantiles{}) {
		t.Errorf("%v", none.Quantiles())
	}
	var endless Latencies
	endless.Buckets[Buckets-1] = 1
	if endless.Quantiles().P50 != 100*time.Second {
		t.Errorf("what is off the scale is %v", endless.Quantiles().P50)
	}
}

func TestMetersCountEverything(t *testing.T) {
	var m Meter
	var c Counts
	if m.Read(&c) {
		t.Fatal("a meter that counted nothing has something to tell")
	}
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			for range 500 {
				m.Record(Proxy, 200, NoReason, time.Millisecond)
				m.Record(RPC, 0, Timeout, 0)
			}
		})
	}
	tasks.Wait()
	m.Fail(Broken)
	if !m.Read(&c) || c.Classes[Proxy][2] != 4000 || c.Classes[RPC][0] != 4000 || c.Reasons[Timeout] != 4000 || c.Reasons[Broken] != 1 {
		t.Errorf("%+v", c)
	}
	if c.Count() != 4000 || c.Sum != 4*time.Second || m.requests() != 8000 {
		t.Errorf("%d durations, %v, %d requests", c.Count(), c.Sum, m.requests())
	}
}

func TestNoCountAllocates(t *testing.T) {
	s, topics := New(), new(Topics)
	var m Meter
	m.Record(RPC, 200, NoReason, 1)
	topics.Published("t")
	if n := testing.AllocsPerRun(100, func() {
		s.Count(200)
		m.Record(Proxy, 200, NoReason, 3*time.Millisecond)
		topics.Published("t")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What a request pays: an answer, a service and a node are counted.
func BenchmarkRecord(b *testing.B) {
	s := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var service, node Meter
		for took := time.Millisecond; pb.Next(); took += time.Microsecond {
			node.Record(Proxy, 200, NoReason, took)
			service.Record(Proxy, 200, NoReason, took)
			s.Count(200)
		}
	})
}

// The same where all processors meet at one service with one node.
func BenchmarkRecordOfOneService(b *testing.B) {
	s := New()
	var service, node Meter
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for took := time.Millisecond; pb.Next(); took += time.Microsecond {
			node.Record(Proxy, 200, NoReason, took)
			service.Record(Proxy, 200, NoReason, took)
			s.Count(200)
		}
	})
}

// What a look costs where there is very much to see, and little of it moves.
func BenchmarkLook(b *testing.B) {
	meters := make([]Meter, 100_000)
	for i := range 1000 {
		meters[i].Record(Proxy, 200, NoReason, time.Millisecond)
	}
	s := NewSampler(New())
	now := time.Now()
	for b.Loop() {
		for i := range 100 {
			meters[i].Record(Proxy, 200, NoReason, time.Millisecond)
		}
		now = now.Add(Tick)
		s.Look(now, func(yield func(*Meter, bool) bool) {
			for i := range meters {
				if !yield(&meters[i], i%10 == 0) {
					return
				}
			}
		})
	}
}
