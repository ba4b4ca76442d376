// Package stats counts what the sidecar answered and how long its nodes took,
// and keeps what is needed to tell the last two minutes and the last hour. To
// count is a few atomic additions: no lock, no allocation, no clock. What is
// known is read by package monitor, which also exports it.
package stats

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// interval is what one counter of the report covers, window how far the
	// report goes back.
	interval = 5 * time.Second
	window   = 120 * time.Second
	slots    = int(window / interval)
)

// Classes is the number of status classes: by the first digit of the status,
// and 0 for no answer at all.
const Classes = 6

// class returns the class of an HTTP status.
func class(status int) int {
	if c := status / 100; 1 <= c && c < Classes {
		return c
	}
	return 0
}

// shards is how many copies of a counter there are that every request of the
// process adds to, so that processors rarely meet at one. A power of two.
const shards = 8

// Stats counts all answers by status class. Its methods are safe for concurrent
// use; Count takes no lock.
type Stats struct {
	started time.Time
	now     func() time.Time // moves with no setting of the clock
	clock   func() time.Time // what people call the time
	counted [shards]struct {
		classes [Classes]atomic.Uint64
		_       [16]byte // to the end of a cache line
	}

	mu   sync.Mutex
	seen [Classes]uint64 // what the slots hold
	ring [slots]slot     // by begin
}

// slot is what happened in one interval.
type slot struct {
	begin   int64 // seconds since 1970, a multiple of interval
	classes [Classes]uint64
}

// New begins counting.
func New() *Stats {
	begun := time.Now()
	s := newAt(func() time.Time { return begun.Add(time.Since(begun)) })
	s.clock = time.Now
	return s
}

func newAt(now func() time.Time) *Stats { return &Stats{started: now(), now: now, clock: now} }

// Now is the time by which everything here is counted: the time of day at the
// start and what has passed since, whatever the clock was set to.
func (s *Stats) Now() time.Time { return s.now() }

// set is by how much the clock was set since the start, in whole seconds:
// people are told times as they call them now.
func (s *Stats) set() time.Duration {
	return s.clock().Round(0).Sub(s.now().Round(0)).Round(time.Second)
}

// Started is when counting began.
func (s *Stats) Started() time.Time { return s.started }

// Count notes an answer with that HTTP status.
func (s *Stats) Count(status int) {
	s.counted[rand.Uint32()%shards].classes[class(status)].Add(1)
}

// Answers returns how many answers there were of each class.
func (s *Stats) Answers() (sum [Classes]uint64) {
	for i := range s.counted {
		for c := range sum {
			sum[c] += s.counted[i].classes[c].Load()
		}
	}
	return sum
}

// File puts what was counted since the last call into the present interval. It
// is called about once a second, so that an answer is at most that long in the
// wrong interval.
func (s *Stats) File() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file()
}

// file is File; mu is held. It returns when the present interval began.
func (s *Stats) file() (begin int64) {
	begin = s.now().Truncate(interval).Unix()
	at := &s.ring[begin/int64(interval/time.Second)%int64(slots)]
	if at.begin != begin {
		*at = slot{begin: begin}
	}
	sum := s.Answers()
	for c := range sum {
		at.classes[c] += sum[c] - s.seen[c]
	}
	s.seen = sum
	return begin
}

// Report is the JSON of /stats as the 2017 sidecar had it. Times are seconds
// since 1970.
type Report struct {
	Started  int64     `json:"started"`
	Memory   string    `json:"memory"`   // heap in use, like "3.20mb"
	Threads  int       `json:"threads"`  // goroutines
	GCPause  string    `json:"gc_pause"` // total since the start, like "0.120ms"
	Counters []Counter `json:"counters"`
}

// Counter is one interval of 5 s. Upgrades (101) count in Total alone.
type Counter struct {
	Timestamp int64             `json:"timestamp"`
	Status    map[string]uint64 `json:"status_codes"` // "20x", "30x", "40x", "50x"
	Total     uint64            `json:"total_reqs"`
}

// Report tells the last 120 s, oldest first, intervals without traffic
// included.
func (s *Stats) Report() Report {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r := Report{
		Started: s.started.Unix(),
		Memory:  fmt.Sprintf("%.2fmb", float64(m.Alloc)/(1<<20)),
		Threads: runtime.NumGoroutine(),
		GCPause: fmt.Sprintf("%.3fms", float64(m.PauseTotalNs)/1e6),
	}
	set := int64(s.set() / time.Second)
	r.Started += set
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.file()
	step := int64(interval / time.Second)
	first := max(last-step*int64(slots-1), s.started.Truncate(interval).Unix())
	for begin := first; begin <= last; begin += step {
		at := s.ring[begin/step%int64(slots)]
		if at.begin != begin {
			at = slot{begin: begin}
		}
		c := at.counter()
		c.Timestamp += set
		r.Counters = append(r.Counters, c)
	}
	return r
}

func (s *slot) counter() Counter {
	c := Counter{Timestamp: s.begin, Status: make(map[string]uint64, 4)}
	for class, n := range s.classes {
		c.Total += n
		if class >= 2 {
			c.Status[fmt.Sprintf("%d0x", class)] = n
		}
	}
	return c
}
