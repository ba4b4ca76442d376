package stats

import (
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that the test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.t }

func (c *clock) add(d time.Duration) { c.mu.Lock(); c.t = c.t.Add(d); c.mu.Unlock() }

func TestReportCountsByClass(t *testing.T) {
	c := &clock{t: time.Unix(1_000_000_000, 0)}
	s := newAt(c.now)
	for _, status := range []int{101, 200, 204, 302, 404, 404, 404, 500, 502} {
		s.Count(status)
	}
	s.File()
	c.add(interval)
	s.Count(200)

	r := s.Report()
	if len(r.Counters) != 2 {
		t.Fatalf("%d counters, want 2: %+v", len(r.Counters), r.Counters)
	}
	first := r.Counters[0]
	want := map[string]uint64{"20x": 2, "30x": 1, "40x": 3, "50x": 2}
	for class, n := range want {
		if first.Status[class] != n {
			t.Errorf("%s: %d, want %d", class, first.Status[class], n)
		}
	}
	if first.Total != 9 || first.Timestamp != 1_000_000_000 {
		t.Errorf("first counter is %+v", first)
	}
	if second := r.Counters[1]; second.Total != 1 || second.Timestamp != 1_000_000_005 {
		t.Errorf("second counter is %+v", second)
	}
}

func TestReportGoesBackTwoMinutes(t *testing.T) {
	c := &clock{t: time.Unix(1_000_000_000, 0)}
	s := newAt(c.now)
	for range 100 {
		s.Count(200)
		s.File()
		c.add(interval)
	}
	c.add(10 * interval) // silence is reported too
	r := s.Report()
	if len(r.Counters) != slots {
		t.Fatalf("%d counters, want %d", len(r.Counters), slots)
	}
	for i, counter := range r.Counters {
		want := uint64(1)
		if i >= slots-11 {
			want = 0
		}
		if counter.Total != want {
			t.Errorf("counter %d: %d, want %d", i, counter.Total, want)
		}
	}
}

func TestCountIsComplete(t *testing.T) {
	c := &clock{t: time.Unix(1_000_000_000, 0)}
	s := newAt(c.now)
	var tasks sync.WaitGroup
	for range 8 {
		tasks.Go(func() {
			for range 1000 {
				s.Count(200)
			}
		})
	}
	tasks.Go(func() {
		for range 10 {
			c.add(time.Second)
			s.File()
		}
	})
	tasks.Wait()
	var sum uint64
	for _, counter := range s.Report().Counters {
		sum += counter.Total
	}
	if sum != 8000 {
		t.Errorf("counted %d, want 8000", sum)
	}
}
