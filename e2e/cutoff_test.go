//go:build unix

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// cutOff is a sidecar that is cut off in one way.
type cutOff struct {
	way       string
	cut, heal func(*testserver.Relay)

	*sidecar
	relay   *testserver.Relay
	changes *socket
	calls   []*load // to its own application, to the one that dies
}

// TestEngineCutOff cuts sidecars off from an engine that runs on: what they
// send vanishes, or what it sends, or both, and nothing is closed. It lasts
// longer than registrations live. Calls go on with what was known. Afterwards
// the connections of before come to life again, or are silent for ever.
func TestEngineCutOff(t *testing.T) {
	for _, name := range []string{"consul", "etcd", "nats"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testCutOff(t, name)
		})
	}
}

func testCutOff(t *testing.T, name string) {
	engine := faultyEngines()[name](t)
	_, address, _ := strings.Cut(engine.env[1], "=")
	direct := newWorld(t, noConsul).with(engine.env...)
	ttl := strings.Fields(ttlFlags)
	app := newGreeter(t)
	near := direct.sidecar(t, "--namespace=cut")
	doomed := direct.sidecar(t, append(ttl, "--server_name=cut.doomed", "--server_address="+newGreeter(t).addr)...)
	all := []*cutOff{
		{way: "both", cut: (*testserver.Relay).Cut, heal: (*testserver.Relay).Forget},
		{way: "to", cut: (*testserver.Relay).CutToServer, heal: (*testserver.Relay).Heal},
		{way: "from", cut: (*testserver.Relay).CutToClient, heal: (*testserver.Relay).Heal},
	}
	for _, far := range all {
		far.relay = testserver.NewRelay(t, address)
		far.sidecar = direct.with(registryAt(name, far.relay.Addr)...).sidecar(t,
			append(ttl, "--namespace=cut", "--server_name=cut."+far.way, "--server_address="+app.addr)...)
		for _, service := range []string{far.way, "doomed"} {
			path := "/" + service + "/say/hello"
			within(t, patient, service+" to be called", func() bool { return far.post(path, john).status == 200 })
			far.calls = append(far.calls, far.load(path, john, contentType, jsonType))
		}
		far.changes = far.open("/registry")
	}

	for _, far := range all {
		far.cut(far.relay)
	}
	doomed.kill()
	direct.sidecar(t).register("", "cut.fresh", "1", app.addr)
	for _, far := range all {
		within(t, patient, far.way+": /readyz to notice", func() bool { return far.get("/readyz").status == 503 })
		if a := far.get("/registry?service=cut.nosuch"); a.status != 503 && a.status != 504 || a.took > 15*time.Second {
			t.Errorf("%s: an unknown service: %d after %v", far.way, a.status, a.took)
		}
		// Who is not cut off sees them end: nobody renews them.
		within(t, 11*time.Second+patient, far.way+": the registrations to end", func() bool {
			return !near.lists("cut."+far.way) && !near.lists("cut.doomed")
		})
		at := far.calls[0].count() + 100
		within(t, patient, far.way+": calls to go on", func() bool { return far.calls[0].count() > at })
		far.calls[1].clean(far.way + ": calls to a node that is not known to be dead")
	}
	for _, far := range all {
		far.heal(far.relay)
	}
	begun := time.Now()
	for _, far := range all {
		say := func(what string) { t.Logf("%s: %s after %v", far.way, what, time.Since(begun).Round(time.Millisecond)) }
		within(t, patient, far.way+": /readyz to recover", func() bool { return far.get("/readyz").status == 200 })
		say("ready")
		within(t, patient, far.way+": the application to be registered again", func() bool { return near.lists("cut." + far.way) })
		say("registered again")
		within(t, 2*patient, far.way+": the dead to be gone", func() bool { return far.post("/doomed/say/hello", john).status == 404 })
		say("the dead gone")
		far.post("/fresh/say/hello", john).is(t, 200, helloJohn)
		far.changes.awaitChange("create", "cut.fresh")
		// Later changes come by the watch, and not only when everything is read again.
		near.register("", "cut.later."+far.way, "1", app.addr)
		far.changes.awaitChange("create", "cut.later."+far.way)
		far.calls[0].clean(far.way + ": calls to the application")
	}
}

// TestEngineSlow has an engine behind a line that is slow and breaks again and
// again.
func TestEngineSlow(t *testing.T) {
	for _, name := range []string{"consul", "etcd", "nats"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := faultyEngines()[name](t)
			_, address, _ := strings.Cut(engine.env[1], "=")
			relay := testserver.NewRelay(t, address)
			far := newWorld(t, noConsul).with(registryAt(name, relay.Addr)...)
			near := newWorld(t, noConsul).with(engine.env...).sidecar(t)
			app := newGreeter(t)
			s := far.sidecar(t, append(strings.Fields(ttlFlags), "--namespace=slow", "--server_name=slow.app", "--server_address="+app.addr)...)
			within(t, patient, "the application to be called", func() bool { return s.post("/app/say/hello", john).status == 200 })
			calls := s.load("/app/say/hello", john, contentType, jsonType)
			for range 3 {
				relay.Reset()
				within(t, patient, "all to be well after a reset", func() bool {
					return s.get("/readyz").status == 200 && near.lists("slow.app")
				})
			}
			relay.Slow(100*time.Millisecond, 20<<10)
			near.register("", "slow.new", "1", app.addr)
			within(t, patient, "a change over a slow line", func() bool { return s.post("/new/say/hello", john).status == 200 })
			relay.Reset()
			within(t, patient, "all to be well after a reset of a slow line", func() bool {
				return s.get("/readyz").status == 200 && s.lists("slow.app")
			})
			relay.Heal()
			calls.clean("calls beside a slow engine")
		})
	}
}
