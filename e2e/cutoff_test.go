//go:build unix

package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// behindRelay are the engines with a relay before them.
func behindRelay(t *testing.T, name string) (engine faulty, relay *testserver.Relay) {
	t.Helper()
	engine = faultyEngines()[name](t)
	_, address, _ := strings.Cut(engine.env[1], "=")
	return engine, testserver.NewRelay(t, address)
}

// noticed bounds how long a sidecar takes to find out that nothing comes
// through, and recovered how long until all is well again afterwards. Both are
// in docs/discovery.md, without the room that a loaded machine needs.
const (
	noticed   = 5*time.Second + patient
	recovered = 15*time.Second + patient
)

// TestEngineCutOff cuts sidecars off from an engine that runs on: what they
// send vanishes, or what it sends, or both, and nothing is closed. It lasts
// longer than registrations live. Calls go on with what was known. Afterwards
// the connections of before come to life again, or are silent for ever.
func TestEngineCutOff(t *testing.T) {
	ways := map[string]func(*testserver.Relay){
		"both": (*testserver.Relay).Cut, "to": (*testserver.Relay).CutToServer, "from": (*testserver.Relay).CutToClient,
	}
	for _, engine := range []string{"consul", "etcd", "nats"} {
		for way, cut := range ways {
			t.Run(engine+"/"+way, func(t *testing.T) {
				t.Parallel()
				heal := (*testserver.Relay).Heal
				if way == "both" {
					heal = (*testserver.Relay).Forget
				}
				testCutOff(t, engine, cut, heal)
			})
		}
	}
}

func testCutOff(t *testing.T, name string, cut, heal func(*testserver.Relay)) {
	engine, relay := behindRelay(t, name)
	direct := newWorld(t, noConsul).with(engine.env...)
	far := newWorld(t, noConsul).with(registryAt(name, relay.Addr)...)
	ttl := strings.Fields(ttlFlags)
	app, doomedApp := newGreeter(t), newGreeter(t)
	watching := direct.sidecar(t, "--namespace=cut")
	doomed := direct.sidecar(t, append(ttl, "--server_name=cut.doomed", "--server_address="+doomedApp.addr)...)
	s := far.sidecar(t, append(ttl, "--namespace=cut", "--server_name=cut.app", "--server_address="+app.addr)...)
	for _, service := range []string{"app", "doomed"} {
		within(t, patient, service+" to be called", func() bool { return s.post("/"+service+"/say/hello", john).status == 200 })
	}
	changes := s.open("/registry")
	calls := []*load{s.load("/app/say/hello", john, contentType, jsonType), s.load("/doomed/say/hello", john, contentType, jsonType)}

	cut(relay)
	took := within(t, noticed, "/readyz to notice", func() bool { return s.get("/readyz").status == 503 })
	t.Logf("noticed after %v", took.Round(time.Millisecond))
	if a := s.get("/registry?service=cut.nosuch"); a.status != 503 && a.status != 504 || a.took > 10*time.Second {
		t.Errorf("an unknown service: %d after %v", a.status, a.took)
	}
	doomed.kill()
	direct.sidecar(t).register("", "cut.fresh", "1", app.addr)
	// Who is not cut off sees both end: nobody renews them.
	within(t, 11*time.Second+patient, "the registrations to end", func() bool {
		return !watching.lists("cut.app") && !watching.lists("cut.doomed")
	})
	at := calls[0].count() + 100
	within(t, patient, "calls to go on", func() bool { return calls[0].count() > at })
	calls[1].clean("calls to a node that is not known to be dead")

	heal(relay)
	took = within(t, recovered, "/readyz to recover", func() bool { return s.get("/readyz").status == 200 })
	t.Logf("ready after %v", took.Round(time.Millisecond))
	begun := time.Now()
	within(t, recovered, "the application to be registered again", func() bool { return watching.lists("cut.app") })
	t.Logf("registered again after %v more", time.Since(begun).Round(time.Millisecond))
	within(t, recovered, "the dead to be gone", func() bool { return s.post("/doomed/say/hello", john).status == 404 })
	t.Logf("the dead were gone after %v more", time.Since(begun).Round(time.Millisecond))
	s.post("/fresh/say/hello", john).is(t, 200, helloJohn)
	changes.awaitChange("create", "cut.fresh")
	// Later changes come by the watch, and not only when everything is read again.
	watching.register("", "cut.later", "1", app.addr)
	changes.awaitChange("create", "cut.later")
	calls[0].clean("calls to the application")
}

// TestEngineSlow has an engine behind a line that is slow and breaks again and
// again.
func TestEngineSlow(t *testing.T) {
	for _, name := range []string{"consul", "etcd", "nats"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine, relay := behindRelay(t, name)
			far := newWorld(t, noConsul).with(registryAt(name, relay.Addr)...)
			near := newWorld(t, noConsul).with(engine.env...).sidecar(t)
			app := newGreeter(t)
			s := far.sidecar(t, append(strings.Fields(ttlFlags), "--namespace=slow", "--server_name=slow.app", "--server_address="+app.addr)...)
			within(t, patient, "the application to be called", func() bool { return s.post("/app/say/hello", john).status == 200 })
			calls := s.load("/app/say/hello", john, contentType, jsonType)
			for range 3 {
				relay.Reset()
				within(t, recovered, "all to be well after a reset", func() bool {
					return s.get("/readyz").status == 200 && near.lists("slow.app")
				})
			}
			relay.Slow(100*time.Millisecond, 20<<10)
			near.register("", "slow.new", "1", app.addr)
			within(t, patient, "a change over a slow line", func() bool { return s.post("/new/say/hello", john).status == 200 })
			relay.Reset()
			within(t, recovered, "all to be well after a reset of a slow line", func() bool {
				return s.get("/readyz").status == 200 && s.lists("slow.app")
			})
			relay.Heal()
			near.post("/registry", "{}") // nothing: only that it answers
			calls.clean("calls beside a slow engine")
		})
	}
}
