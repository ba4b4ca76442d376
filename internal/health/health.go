// Package health probes the application and decides, by thresholds, when it
// counts as healthy. What follows from that (registration, delivery) is the
// caller's.
package health

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Check is a probe and what it takes to be healthy. An HTTP probe passes when
// the answer has status 200, a TCP probe when the connection is made; both
// within Timeout.
type Check struct {
	// URL is http or https; http://unix:/PATH:/PATH-OF-URL looks at a unix
	// socket. tcp://HOST:PORT and tcp://unix:/PATH only connect.
	URL      string
	Interval time.Duration // from the end of one probe to the begin of the next
	Timeout  time.Duration
	Fall     int // failures in a row after which a healthy application is not
	Rise     int // successes in a row after which it is healthy again
	// StartupGrace is how long the application may take to be healthy for the
	// first time. Until then it is looked at more often.
	StartupGrace time.Duration
}

// startupInterval is the longest pause between probes in the startup grace.
const startupInterval = 250 * time.Millisecond

// Result is what one probe saw.
type Result struct {
	// Status is the answer's HTTP status, 0 when there was none.
	Status int
	// Err says why the probe failed; nil means that it passed.
	Err error
}

// Sample is one probe of the past.
type Sample struct {
	Result
	Time time.Time     // when it ended
	Took time.Duration // how long it lasted
}

// samples is how many of the last probes are kept.
const samples = 20

// Prober runs a check. Its methods are safe for concurrent use.
type Prober struct {
	target  atomic.Pointer[target]
	changed chan struct{} // holds one when the check was replaced

	mu   sync.Mutex
	last []Sample // the newest last
}

// target is a check, and how its probe is made.
type target struct {
	Check
	probe func(context.Context) Result
}

// New makes a prober. Each probe opens a connection of its own: one that was
// kept alive would say nothing about whether the application still listens.
func New(c Check) *Prober {
	p := &Prober{changed: make(chan struct{}, 1)}
	p.target.Store(newTarget(c))
	return p
}

// Replace goes on with another check; what was found healthy stays so until
// probes say otherwise.
func (p *Prober) Replace(c Check) {
	p.target.Store(newTarget(c))
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Check returns the present check.
func (p *Prober) Check() Check { return p.target.Load().Check }

// Probe looks once. The result counts towards no threshold.
func (p *Prober) Probe(ctx context.Context) Result {
	t := p.target.Load()
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	return t.probe(ctx)
}

// Recent returns what the last probes of [Prober.Run] saw, the oldest first.
func (p *Prober) Recent() []Sample {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.last)
}

// look is Probe for Run: the result is kept.
func (p *Prober) look(ctx context.Context) Result {
	begun := time.Now()
	r := p.Probe(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.last) == samples {
		p.last = slices.Delete(p.last, 0, 1)
	}
	p.last = append(p.last, Sample{r, time.Now(), time.Since(begun)})
	return r
}

// Run probes until ctx ends and calls changed, from this goroutine, whenever
// the application becomes healthy or stops being so. It begins as not healthy:
// changed is told when the first probe fails, and once more when the
// application has not been healthy by the end of the startup grace. The first
// good probe is enough to be healthy for the first time.
func (p *Prober) Run(ctx context.Context, changed func(healthy bool, r Result)) {
	s := streak{begun: time.Now()}
	for ctx.Err() == nil {
		r := p.look(ctx)
		if ctx.Err() != nil {
			return
		}
		check := p.Check()
		if s.add(check, r) {
			changed(s.healthy, r)
		}
		pause := check.Interval
		if s.starting(check) {
			pause = min(pause, startupInterval)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-p.changed:
		}
		timer.Stop()
	}
}

// streak counts the probes in a row that speak against the present state.
type streak struct {
	begun   time.Time
	healthy bool
	count   int
	probes  int  // in all
	been    bool // healthy, once at least
	late    bool // the end of the startup grace was told
}

// starting reports whether the application has its startup grace.
func (s *streak) starting(c Check) bool {
	return !s.been && time.Since(s.begun) < c.StartupGrace
}

// add counts a result and reports whether there is something to tell.
func (s *streak) add(c Check, r Result) bool {
	s.probes++
	if (r.Err == nil) == s.healthy {
		s.count = 0
	} else {
		s.count++
	}
	need := 1
	switch {
	case s.healthy:
		need = c.Fall
	case s.been:
		need = c.Rise
	}
	if s.count >= need {
		s.healthy, s.count = !s.healthy, 0
		s.been = s.been || s.healthy
		return true
	}
	if s.been || s.starting(c) || c.StartupGrace == 0 || s.late {
		return s.probes == 1 && !s.healthy
	}
	s.late = true
	return true
}
