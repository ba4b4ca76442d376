package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestProbeOverTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections
	if err != nil {
		t.Fatal(err)
	}
	p := New(Check{URL: TCP(l.Addr().String()), Timeout: 10 * time.Second})
	if r := p.Probe(t.Context()); r.Err != nil || r.Status != 0 {
		t.Errorf("an open port: %+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r := p.Probe(t.Context()); r.Err == nil {
		t.Error("a closed port passes")
	}
	socket := t.TempDir() + "/s"
	p.Replace(Check{URL: TCP("unix:" + socket), Timeout: 10 * time.Second})
	if r := p.Probe(t.Context()); r.Err == nil {
		t.Error("a socket that is not there passes")
	}
	u, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip(err) // the system's temporary folder may be too deep for a socket
	}
	defer u.Close()
	if r := p.Probe(t.Context()); r.Err != nil {
		t.Errorf("a socket: %+v", r)
	}
}

// scripted is a prober whose probes are what answer says.
func scripted(c Check, answer func() error) *Prober {
	p := New(c)
	p.target.Store(&target{c, func(context.Context) Result { return Result{Err: answer()} }})
	return p
}

var errBad = errors.New("bad")

func TestStartupGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, probes := time.Now(), 0
		type event struct {
			healthy bool
			after   time.Duration
		}
		var events []event
		ctx, cancel := context.WithCancel(t.Context())
		p := scripted(Check{Interval: 4 * time.Second, Timeout: time.Second, Fall: 1, Rise: 1, StartupGrace: time.Second}, func() error {
			probes++
			if time.Since(begun) < 9*time.Second {
				return errBad
			}
			return nil
		})
		p.Run(ctx, func(healthy bool, _ Result) {
			events = append(events, event{healthy, time.Since(begun)})
			if healthy {
				cancel()
			}
		})
		// It looks four times a second, tells the first failure and the end of
		// the grace, and then has its usual pace.
		want := []event{{false, 0}, {false, time.Second}, {true, 9 * time.Second}}
		if len(events) != len(want) || events[0] != want[0] || events[1] != want[1] || events[2] != want[2] {
			t.Errorf("told %v, want %v", events, want)
		}
		if probes != 5+2 {
			t.Errorf("%d probes", probes)
		}
		if got := p.Recent(); len(got) != probes || got[0].Err == nil || got[probes-1].Err != nil {
			t.Errorf("remembered: %+v", got)
		}
	})
}

func TestOnlyTheLastProbesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p := scripted(Check{Interval: time.Second, Fall: 1, Rise: 1}, func() error { return nil })
		p.Run(ctx, func(bool, Result) {})
		last := p.Recent()
		if len(last) != samples || last[0].Time.After(last[samples-1].Time) || time.Since(last[samples-1].Time) > 2*time.Second {
			t.Errorf("%d probes, from %v to %v", len(last), last[0].Time, last[samples-1].Time)
		}
	})
}

// Another check takes effect at once, not after the pause of the old one, and
// what was healthy stays so.
func TestReplace(t *testing.T) {
	s, _ := server(t, func(int) int { return http.StatusOK })
	var down atomic.Bool
	bad, _ := server(t, func(int) int {
		if down.Load() {
			return 500
		}
		return 200
	})
	check := Check{URL: s.URL, Interval: time.Hour, Timeout: 10 * time.Second, Fall: 1, Rise: 1}
	p := New(check)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var told []bool
	p.Run(ctx, func(healthy bool, _ Result) {
		told = append(told, healthy)
		if !healthy {
			cancel()
			return
		}
		down.Store(true)
		check.URL, check.Interval, check.Fall = bad.URL, time.Millisecond, 3
		p.Replace(check)
	})
	if len(told) != 2 || !told[0] || told[1] || p.Check().Fall != 3 {
		t.Errorf("told %v", told)
	}
	if recent := p.Recent(); len(recent) != 4 {
		t.Errorf("%d probes, want one good and three bad", len(recent))
	}
}

func TestState(t *testing.T) {
	var s State
	changed := s.Changed()
	s.Set(false)
	select {
	case <-changed:
		t.Error("told of no change")
	default:
	}
	s.Set(true)
	<-changed
	if !s.Healthy() {
		t.Error("not healthy")
	}
	changed = s.Changed()
	s.Set(true)
	select {
	case <-changed:
		t.Error("told of no change")
	default:
	}
	s.Set(false)
	<-changed
}
