//go:build unix

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// faulty is an engine that a test may do something to.
type faulty struct {
	name        string
	env         []string
	stop, start func()
	wipe        func() // of what it has on disk, while it is stopped
	pause, goOn func() // nil where it runs in this process
}

// faultyEngines start on demand.
func faultyEngines() map[string]func(*testing.T) faulty {
	return map[string]func(*testing.T) faulty{
		"consul": func(t *testing.T) faulty {
			s := testserver.Consul(t)
			return faulty{"consul", registryAt("consul", s.Addr), s.Stop, s.Restart, func() {}, s.Pause, s.Continue}
		},
		"etcd": func(t *testing.T) faulty {
			s := testserver.Etcd(t)
			return faulty{"etcd", registryAt("etcd", s.Addr), s.Stop, s.Start, s.Wipe, s.Pause, s.Continue}
		},
		"nats": func(t *testing.T) faulty {
			s := testserver.NATS(t)
			return faulty{"nats", registryAt("nats", s.Addr), s.Stop, s.Start, s.Wipe, nil, nil}
		},
	}
}

// The registrations of the tests below.
const ttlFlags = "--register_ttl=6 --register_interval=1"

// TestEngineLost kills an engine under load and brings it back, with what it
// knew and empty. Calls go on all the time; the application is there again
// soon; who died meanwhile is not.
func TestEngineLost(t *testing.T) {
	for name, open := range faultyEngines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := open(t)
			w := newWorld(t, noConsul).with(engine.env...)
			app := newGreeter(t)
			s := w.sidecar(t, append(strings.Fields(ttlFlags), "--namespace=lost", "--server_name=lost.app", "--server_address="+app.addr)...)
			doomed := w.sidecar(t, append(strings.Fields(ttlFlags), "--server_name=lost.doomed", "--server_address="+newGreeter(t).addr)...)
			caller := w.sidecar(t, "--namespace=lost")
			for _, service := range []string{"app", "doomed"} {
				within(t, patient, service+" to be registered", func() bool { return caller.post("/"+service+"/say/hello", john).status == 200 })
			}
			within(t, patient, "its own sidecar to see it", func() bool { return s.post("/app/say/hello", john).status == 200 })
			calls := []*load{s.load("/app/say/hello", john, contentType, jsonType), caller.load("/app/say/hello", john, contentType, jsonType)}
			for _, empty := range []bool{false, true} {
				engine.stop()
				within(t, patient, "/readyz to notice", func() bool { return caller.get("/readyz").status == 503 })
				caller.get("/registry?service=lost.nosuch").refused(t, 503, "")
				at := calls[1].count() + 100
				within(t, patient, "calls to go on", func() bool { return calls[1].count() > at })
				if empty {
					engine.wipe()
					doomed.kill()
				}
				engine.start()
				took := within(t, patient, "/readyz to recover", func() bool { return caller.get("/readyz").status == 200 })
				within(t, patient, "the application to be there", func() bool { return caller.lists("lost.app") })
				t.Logf("empty=%v: ready %v after the engine", empty, took.Round(time.Millisecond))
			}
			begun := time.Now()
			within(t, patient, "the dead to be gone", func() bool { return caller.post("/doomed/say/hello", john).status == 404 })
			t.Logf("the dead were gone after %v", time.Since(begun).Round(time.Millisecond))
			caller.register("", "lost.after", "1", app.addr)
			within(t, patient, "changes to arrive", func() bool { return s.post("/after/say/hello", john).status == 200 })
			for _, l := range calls {
				l.clean("calls while the engine was lost")
			}
		})
	}
}

// lists reports whether the registry has a node of the service.
func (s *sidecar) lists(service string) bool {
	s.t.Helper()
	a := s.get("/registry?service=" + service)
	return a.status == 200 && strings.Contains(a.body, `"id"`)
}

// TestDeadAreGone kills a sidecar outright: what it had registered is gone a
// TTL later, and 5 s at most. Whoever takes its address over is not taken for
// it.
func TestDeadAreGone(t *testing.T) {
	for name, open := range faultyEngines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, noConsul).with(open(t).env...)
			app := newGreeter(t)
			dead := w.sidecar(t, append(strings.Fields(ttlFlags), "--server_name=dead.old", "--server_address="+app.addr)...)
			caller := w.sidecar(t, "--namespace=dead")
			within(t, patient, "the application to be registered", func() bool { return caller.post("/old/say/hello", john).status == 200 })
			dead.kill()
			took := within(t, patient, "the dead to be gone", func() bool { return caller.post("/old/say/hello", john).status == 404 })
			t.Logf("gone after %v, with a TTL of 6s", took.Round(time.Millisecond))
			if took > 20*time.Second {
				t.Errorf("gone after %v, want 11s, and what a busy machine adds", took)
			}
			// The address now belongs to another service.
			caller.register("", "dead.new", "n1", app.addr)
			caller.post("/new/say/hello", john).is(t, 200, helloJohn)
			caller.post("/old/say/hello", john).refused(t, 404, "dead.old")
		})
	}
}

// TestEnginePaused has an engine that keeps its connections and answers
// nothing.
func TestEnginePaused(t *testing.T) {
	for name, open := range faultyEngines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := open(t)
			if engine.pause == nil {
				return // a paused NATS server is tested beside the embedded engine, with the same code
			}
			w := newWorld(t, noConsul).with(engine.env...)
			app := newGreeter(t)
			caller := w.sidecar(t, append(strings.Fields(ttlFlags), "--namespace=paused", "--server_name=paused.app", "--server_address="+app.addr)...)
			within(t, patient, "the application to be registered", func() bool { return caller.post("/app/say/hello", john).status == 200 })
			calls := caller.load("/app/say/hello", john, contentType, jsonType)
			engine.pause()
			within(t, patient, "/readyz to notice", func() bool { return caller.get("/readyz").status == 503 })
			if a := caller.get("/registry?service=paused.nosuch"); a.status != 503 && a.status != 504 || a.took > 15*time.Second {
				t.Errorf("an unknown service: %d after %v", a.status, a.took)
			}
			at := calls.count() + 100
			within(t, patient, "calls to go on", func() bool { return calls.count() > at })
			engine.goOn()
			within(t, patient, "/readyz to recover", func() bool { return caller.get("/readyz").status == 200 })
			within(t, patient, "the application to be there", func() bool { return caller.lists("paused.app") })
			other := w.sidecar(t)
			other.register("", "paused.after", "1", app.addr)
			within(t, patient, "changes to arrive", func() bool { return caller.post("/after/say/hello", john).status == 200 })
			calls.clean("calls while the engine was paused")
		})
	}
}
