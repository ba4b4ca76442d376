package stats

import (
	"iter"
	"sync"
	"time"
)

// maxHistories bounds how many services and nodes have a history.
const maxHistories = 4096

// Sampler looks at counters every [Tick] and keeps how they grew. It costs
// nothing where nobody wants to see that: then there is none. Its methods are
// safe for concurrent use.
type Sampler struct {
	stats *Stats

	mu      sync.Mutex
	looks   uint64
	at      time.Time // the middle of what the last look saw
	answers [Classes]uint64
	total   history
	meters  map[*Meter]*metered
}

// metered is a meter that was seen.
type metered struct {
	seen     uint64 // the last look that found it
	requests uint64
	counts   Counts
	history  history
}

// NewSampler makes one that has seen nothing.
func NewSampler(s *Stats) *Sampler {
	return &Sampler{stats: s, at: s.now(), meters: map[*Meter]*metered{}}
}

// Look notes how much was counted in the [Tick] that ends now, which is
// [Stats.Now]. meters yields
// those there are, true with those of services and false with those of nodes.
func (s *Sampler) Look(now time.Time, meters iter.Seq2[*Meter, bool]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looks++
	s.at = now.Add(-Tick / 2)
	var total, d delta
	for m, isService := range meters {
		if s.grown(m, &d) {
			s.meters[m].history.add(s.at, &d)
			if isService {
				total.add(&d)
			}
		}
	}
	for m, at := range s.meters {
		if at.seen != s.looks {
			delete(s.meters, m) // its service or node is no more
		}
	}
	answers := s.stats.Answers()
	total.failed = answers[5] - s.answers[5]
	for c := range answers { // the classes are those of all answers
		total.classes[c] = answers[c] - s.answers[c]
	}
	s.answers = answers
	s.total.add(s.at, &total)
}

// grown finds out what a meter counted since the last look.
func (s *Sampler) grown(m *Meter, d *delta) bool {
	at := s.meters[m]
	requests := m.requests()
	switch {
	case at != nil:
		at.seen = s.looks
	case requests == 0 || len(s.meters) >= maxHistories:
		return false
	default:
		at = &metered{seen: s.looks}
		s.meters[m] = at
	}
	if requests == at.requests {
		return false
	}
	var now Counts
	m.Read(&now)
	*d = delta{}
	for p := range now.Classes {
		for c, n := range now.Classes[p] {
			d.classes[c] += n - at.counts.Classes[p][c]
		}
	}
	d.failed = d.classes[0] + d.classes[5]
	for b, n := range now.Buckets {
		d.buckets[b] = n - at.counts.Buckets[b]
	}
	at.counts, at.requests = now, 0
	for p := range now.Classes {
		for _, n := range now.Classes[p] {
			at.requests += n // those that were read
		}
	}
	return true
}

// Total tells about all requests: the classes are those of every answer, the
// latencies those of services.
func (s *Sampler) Total(span Span) (Recent, Series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total.recent(s.at, span), s.series(&s.total, span)
}

// series gives the times as people call them; s.mu is held.
func (s *Sampler) series(h *history, span Span) Series {
	out := h.series(s.at, span)
	out.End = out.End.Add(s.stats.set())
	return out
}

// Recent tells about one meter.
func (s *Sampler) Recent(m *Meter) Recent {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.meters[m]; at != nil {
		return at.history.recent(s.at, TwoMinutes)
	}
	return Recent{}
}

// Series tells about one meter in steps.
func (s *Sampler) Series(m *Meter, span Span) (Recent, Series) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var none history
	h := &none
	if at := s.meters[m]; at != nil {
		h = &at.history
	}
	return h.recent(s.at, span), s.series(h, span)
}
