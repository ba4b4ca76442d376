package stats

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// watched is a sampler whose time the test moves by ticks.
type watched struct {
	*Sampler
	clock  *clock
	meters map[*Meter]bool
}

func newWatched() *watched {
	c := &clock{t: time.Unix(1_000_000_000, 0)}
	return &watched{NewSampler(newAt(c.now)), c, map[*Meter]bool{}}
}

func (w *watched) tick() {
	w.clock.add(Tick)
	w.Look(w.clock.now(), func(yield func(*Meter, bool) bool) {
		for m, isService := range w.meters {
			if !yield(m, isService) {
				return
			}
		}
	})
}

func TestTheLastTwoMinutes(t *testing.T) {
	w := newWatched()
	service, node := new(Meter), new(Meter)
	w.meters[service], w.meters[node] = true, false
	for i := range 100 {
		for range 4 {
			service.Record(Proxy, 200, NoReason, 10*time.Millisecond)
			node.Record(Proxy, 200, NoReason, 10*time.Millisecond)
			w.stats.Count(200)
		}
		if i == 99 {
			service.Record(Proxy, 504, Timeout, 4*time.Second)
			w.stats.Count(504)
		}
		w.tick()
	}
	r, s := w.Series(service, TwoMinutes)
	if len(s.Rates[2]) != points || s.Step != Tick || !s.End.Equal(w.clock.now()) {
		t.Fatalf("%d steps of %v until %v, want the end %v", len(s.Rates[2]), s.Step, s.End, w.clock.now())
	}
	for i, rate := range s.Rates[2] {
		if rate != 2 {
			t.Errorf("step %d: %v a second, want 2", i, rate)
		}
	}
	if s.Rates[5][points-1] != 0.5 || s.Rates[5][points-2] != 0 {
		t.Errorf("failures are %v", s.Rates[5])
	}
	if q := s.Quantiles[0]; q.P50 < 8*time.Millisecond || q.P99 > 10*time.Millisecond || s.Quantiles[points-1].P99 < 3*time.Second {
		t.Errorf("latencies are %v … %v", q, s.Quantiles[points-1])
	}
	if r.Requests != 4*points+1 || r.Failures != 1 || r.Rate != 2.1 || r.Failed != 0.1 {
		t.Errorf("lately: %+v", r)
	}
	// The total has the classes of all answers and the latencies of services.
	total, all := w.Total(TwoMinutes)
	if total.Requests != r.Requests || total.Failures != 1 || all.Quantiles[0] != s.Quantiles[0] {
		t.Errorf("in all %+v, %v", total, all.Quantiles[0])
	}
	if at := w.Recent(node); at.Rate != 2 || at.Failures != 0 {
		t.Errorf("the node: %+v", at)
	}
}

func TestTheLastHour(t *testing.T) {
	w := newWatched()
	m := new(Meter)
	w.meters[m] = true
	for range 90 * int(time.Minute/Tick) {
		m.Record(RPC, 200, NoReason, time.Millisecond)
		w.tick()
	}
	r, s := w.Series(m, Hour)
	if len(s.Rates[2]) != points || s.Step != time.Minute {
		t.Fatalf("%d steps of %v", len(s.Rates[2]), s.Step)
	}
	for i, rate := range s.Rates[2] {
		if rate != 0.5 {
			t.Errorf("step %d: %v a second, want 0.5, also in the minute that has just begun", i, rate)
		}
	}
	if r.Requests < 59*30 || r.Requests > 60*30 {
		t.Errorf("%d requests in an hour", r.Requests)
	}
}

func TestSilenceIsForgotten(t *testing.T) {
	w := newWatched()
	m := new(Meter)
	w.meters[m] = true
	m.Record(Proxy, 500, NoReason, time.Second)
	w.tick()
	if r := w.Recent(m); r.Requests != 1 || r.Failures != 1 {
		t.Fatalf("%+v", r)
	}
	for range points {
		w.tick()
	}
	if r := w.Recent(m); r != (Recent{}) {
		t.Errorf("after two minutes: %+v", r)
	}
	if r, _ := w.Series(m, Hour); r.Requests != 1 {
		t.Errorf("of the hour: %+v", r)
	}
	w.clock.add(-time.Hour) // the machine's clock is set back
	m.Record(Proxy, 200, NoReason, time.Second)
	w.tick()
	if r := w.Recent(m); r.Requests != 1 {
		t.Errorf("with the clock set back: %+v", r)
	}
}

func TestWhatIsGoneIsForgotten(t *testing.T) {
	w := newWatched()
	for range 3 * maxHistories {
		m := new(Meter)
		m.Record(Proxy, 200, NoReason, time.Second)
		w.meters[m] = true
	}
	w.tick()
	if n := len(w.Sampler.meters); n != maxHistories {
		t.Errorf("%d histories, want %d", n, maxHistories)
	}
	clear(w.meters)
	w.tick()
	if n := len(w.Sampler.meters); n != 0 {
		t.Errorf("%d histories of what is no more", n)
	}
}

func TestTopicsAreBounded(t *testing.T) {
	var topics Topics
	for i := range 10 * maxTopics {
		topics.Published(fmt.Sprintf("topic-%04d", i))
	}
	all := topics.All()
	if len(all) != maxTopics+1 || all[0].Name != OtherTopics || all[0].Published != 9*maxTopics {
		t.Errorf("%d topics, the first %+v", len(all), all[0])
	}
	if strings.Compare(all[1].Name, all[2].Name) >= 0 {
		t.Errorf("topics are not in order: %v, %v", all[1], all[2])
	}
}

func TestTopicRates(t *testing.T) {
	var topics Topics
	now := time.Unix(1_000_000_000, 0)
	for range 20 {
		for range 6 {
			topics.Published("t")
		}
		topics.Delivered("t", 1)
		now = now.Add(Tick)
		topics.Look(now)
	}
	if all := topics.All(); len(all) != 1 || all[0].PublishedRate != 3 || all[0].DeliveredRate != 0.5 || all[0].Published != 120 {
		t.Errorf("%+v", all)
	}
}
