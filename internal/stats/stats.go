// Package stats counts what the sidecar answered and reports it in the form
// of the 2017 sidecar's /stats. It counts; it does not time or export.
package stats

import (
	"fmt"
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

// Stats counts answers by status class. All methods are safe for concurrent
// use; Count takes no lock.
type Stats struct {
	started time.Time
	now     func() time.Time
	current atomic.Pointer[slot]

	mu   sync.Mutex
	past []*slot // finished slots, oldest first
}

// slot is what happened in one interval, counted by the first digit of the status.
type slot struct {
	begin   int64 // seconds since 1970, a multiple of interval
	classes [6]atomic.Int64
}

// New begins counting.
func New() *Stats { return newAt(time.Now) }

func newAt(now func() time.Time) *Stats {
	s := &Stats{started: now(), now: now}
	s.current.Store(&slot{begin: s.begin()})
	return s
}

func (s *Stats) begin() int64 { return s.now().Truncate(interval).Unix() }

// Count notes an answer with that HTTP status.
func (s *Stats) Count(status int) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	s.slot().classes[class].Add(1)
}

// slot returns the one for now, and files the one before.
func (s *Stats) slot() *slot {
	begin := s.begin()
	if cur := s.current.Load(); cur.begin == begin {
		return cur
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	cur := s.current.Load()
	if cur.begin >= begin {
		return cur
	}
	s.past = append(s.past, cur)
	if extra := len(s.past) - slots; extra > 0 {
		s.past = append([]*slot(nil), s.past[extra:]...)
	}
	next := &slot{begin: begin}
	s.current.Store(next)
	return next
}

// Report is the JSON of /stats. Times are seconds since 1970.
type Report struct {
	Started  int64     `json:"started"`
	Memory   string    `json:"memory"`   // heap in use, like "3.20mb"
	Threads  int       `json:"threads"`  // goroutines
	GCPause  string    `json:"gc_pause"` // total since the start, like "0.120ms"
	Counters []Counter `json:"counters"`
}

// Counter is one interval of 5 s. Upgrades (101) count in Total alone.
type Counter struct {
	Timestamp int64            `json:"timestamp"`
	Status    map[string]int64 `json:"status_codes"` // "20x", "30x", "40x", "50x"
	Total     int64            `json:"total_reqs"`
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
	s.slot()
	s.mu.Lock()
	found := map[int64]*slot{}
	for _, old := range s.past {
		found[old.begin] = old
	}
	cur := s.current.Load()
	s.mu.Unlock()
	found[cur.begin] = cur

	step := int64(interval / time.Second)
	first := max(cur.begin-step*int64(slots-1), s.started.Truncate(interval).Unix())
	for at := first; at <= cur.begin; at += step {
		r.Counters = append(r.Counters, counter(at, found[at]))
	}
	return r
}

func counter(at int64, s *slot) Counter {
	c := Counter{Timestamp: at, Status: map[string]int64{"20x": 0, "30x": 0, "40x": 0, "50x": 0}}
	if s == nil {
		return c
	}
	for class := range s.classes {
		n := s.classes[class].Load()
		c.Total += n
		if class >= 2 {
			c.Status[fmt.Sprintf("%d0x", class)] = n
		}
	}
	return c
}
