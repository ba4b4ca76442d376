package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

// recorder is a handler that keeps what it was given.
type recorder struct {
	mu      sync.Mutex
	got     []broker.Delivery
	changed chan struct{} // holds a token when got has grown
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{}, 1)} }

// record subscribes a new recorder.
func (s *suite) record(b broker.Broker, topic, queue string) (*recorder, broker.Subscription) {
	s.Helper()
	r := newRecorder()
	return r, s.subscribe(b, topic, queue, r.handle)
}

func (r *recorder) handle(d broker.Delivery) {
	r.mu.Lock()
	r.got = append(r.got, d)
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) deliveries() []broker.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *recorder) bodies() []string {
	var out []string
	for _, d := range r.deliveries() {
		out = append(out, string(d.Body))
	}
	return out
}

// count waits until n deliveries have arrived.
func (s *suite) count(r *recorder, n int) []broker.Delivery {
	s.Helper()
	deadline := time.After(s.o.Wait)
	for {
		got := r.deliveries()
		if len(got) >= n {
			return got
		}
		select {
		case <-r.changed:
		case <-deadline:
			s.Fatalf("%d of %d messages arrived within %v", len(got), n, s.o.Wait)
		}
	}
}

// exactly waits for the bodies, in that order when the engine promises order,
// and for nothing else.
func (s *suite) exactly(r *recorder, want ...string) {
	s.Helper()
	s.count(r, len(want))
	s.quiet()
	s.same(r.bodies(), want)
}

// quiet listens for what must not arrive.
func (s *suite) quiet() { time.Sleep(s.o.Quiet) }

// same compares bodies, as sets with multiplicity unless order is promised.
func (s *suite) same(got, want []string) {
	s.Helper()
	if !s.o.Ordered {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	}
	if !slices.Equal(got, want) {
		s.Fatalf("arrived: %s\nwant:    %s", shorten(got), shorten(want))
	}
}

// shorten prints bodies for a failure.
func shorten(bodies []string) string {
	const most = 20
	if len(bodies) > most {
		return fmt.Sprintf("%.60q … (%d)", bodies[:most], len(bodies))
	}
	return fmt.Sprintf("%.60q", bodies)
}

// numbered returns n bodies that differ.
func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return out
}
