//go:build unix

package e2e

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// chose requires what the log says about the engines.
func (s *sidecar) chose(registry, because, broker string) {
	s.t.Helper()
	line := ""
	within(s.t, patient, "the log to say which engine was chosen", func() bool {
		for line = range strings.Lines(s.log.String()) {
			if strings.Contains(line, `msg="engines chosen"`) && strings.HasSuffix(line, "\n") {
				return true
			}
		}
		return false
	})
	if !strings.Contains(line, " registry="+registry+" ") || !strings.Contains(line, " broker="+broker) || !strings.Contains(line, because) {
		s.t.Errorf("the log says %s; want %s because %s, broker %s", line, registry, because, broker)
	}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	s := newWorld(t, noConsul).sidecar(t)
	s.chose("embedded", "no Consul agent answers at "+noConsul, "embedded")
	if !strings.Contains(firstLog(s.log.String()), "loopback only") {
		t.Errorf("the first log line does not say who is served: %s", firstLog(s.log.String()))
	}
	newWorld(t, noConsul).sidecar(t, "--broker=http").chose("embedded", noConsul, "http")

	agent := testserver.Consul(t)
	w := newWorld(t, agent.Addr)
	for tries := 1; ; tries++ { // it has half a second to answer, which a busy machine may need for something else
		s := w.sidecar(t)
		if tries == 5 || !strings.Contains(s.log.String(), "no Consul agent answers") {
			s.chose("consul", "a Consul agent answers at "+agent.Addr, "http")
			break
		}
	}
	w.with(registryAt("consul", agent.Addr)...).succeed(t, "register", "service", `{"name":"choice","nodes":[{"id":"1","address":"127.0.0.1:1"}]}`)
	within(t, patient, "a command to find the agent", func() bool {
		_, out, _ := w.run(t, "list", "services")
		return strings.Contains(out, "choice\n")
	})
	w.sidecar(t, "--registry=embedded").chose("embedded", "asked for", "embedded")
	newWorld(t, noConsul).sidecar(t, "--registry=consul", "--registry_address="+agent.Addr, "--broker=embedded").chose("consul", "asked for", "embedded")
}

// An agent that takes connections and says nothing, as one under SIGSTOP does.
func TestHangingConsulAtStart(t *testing.T) {
	t.Parallel()
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	w := newWorld(t, hanging.Addr().String())
	begun := time.Now()
	s := w.sidecar(t)
	took := time.Since(begun)
	s.chose("embedded", "no Consul agent answers at "+hanging.Addr().String(), "embedded")
	t.Logf("ready after %v", took.Round(time.Millisecond))
	if took < 500*time.Millisecond || took > 10*time.Second {
		t.Errorf("ready after %v, want some 500 ms", took)
	}
	begun = time.Now()
	w.succeed(t, "list", "services")
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("a command took %v", took)
	}
}

// An engine that was named is waited for.
func TestNamedConsulAway(t *testing.T) {
	t.Parallel()
	agent := testserver.Consul(t)
	agent.Stop()
	w := newWorld(t, noConsul)
	app := newGreeter(t)
	s := w.launch(t, "--registry=consul", "--registry_address="+agent.Addr, "--namespace=away", "--client_request_timeout=2s",
		"--server_name=away.app", "--server_address="+app.addr)
	within(t, patient, "/readyz to say why", func() bool { return strings.Contains(s.get("/readyz").body, agent.Addr) })
	s.get("/livez").is(t, 200, "ok\n")
	s.get("/readyz").refused(t, 503, "consul")
	s.get("/registry").refused(t, 503, "")
	s.post("/app/say/hello", john).refused(t, 503, "")
	s.post("/broker?topic=away", "x").refused(t, 503, "")
	w.fails(t, 1, agent.Addr, "--registry=consul", "--registry_address="+agent.Addr, "list", "services")

	agent.Restart()
	took := within(t, patient, "the sidecar to be ready", func() bool { return s.get("/readyz").status == 200 })
	t.Logf("ready %v after the agent", took.Round(time.Millisecond))
	took = within(t, patient, "the application to be registered", func() bool { return s.post("/app/say/hello", john).status == 200 })
	t.Logf("application registered %v later", took.Round(time.Millisecond))
	s.chose("consul", "asked for", "http")
}

// TestConsulRestart loses the agent under load; it comes back empty.
func TestConsulRestart(t *testing.T) {
	t.Parallel()
	agent := testserver.Consul(t)
	w := newWorld(t, noConsul).with(registryAt("consul", agent.Addr)...)
	app := newGreeter(t)
	s := w.sidecar(t, "--namespace=restart", "--server_name=restart.app", "--server_address="+app.addr, "--healthcheck_url="+app.URL+"/health")
	caller := w.sidecar(t, "--namespace=restart")
	caller.register("", "restart.posted", "1", app.addr)
	for _, k := range []*sidecar{s, caller} {
		within(t, patient, "the application to be registered", func() bool { return k.post("/app/say/hello", john).status == 200 })
	}
	caller.post("/posted/say/hello", john).is(t, 200, helloJohn)
	watch, events := s.open("/registry"), caller.open("/registry?service=restart.after")
	s.register("", "restart.before", "1", app.addr)
	watch.awaitChange("create", "restart.before")

	// The application's calls go on through loss and return, the other's while
	// the agent is away: an empty agent knows it no longer.
	toApp := []*load{s.load("/app/say/hello", john, contentType, jsonType), caller.load("/app/say/hello", john, contentType, jsonType)}
	toPosted := caller.load("/posted/say/hello", john, contentType, jsonType)
	agent.Stop()
	took := within(t, patient, "/readyz to notice", func() bool { return caller.get("/readyz").status == 503 })
	t.Logf("/readyz noticed after %v: %s", took.Round(time.Millisecond), caller.get("/readyz").body)
	caller.get("/readyz").refused(t, 503, "consul")
	caller.get("/registry?service=restart.nosuch").refused(t, 503, "")
	caller.post("/registry", `{"Name":"restart.lost","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`).refused(t, 503, "")
	at := toPosted.count() + 300
	within(t, patient, "calls to go on", func() bool { return toPosted.count() > at })
	toPosted.clean("a known service while the agent is away")

	agent.Restart()
	took = within(t, patient, "/readyz to recover", func() bool { return caller.get("/readyz").status == 200 })
	t.Logf("ready %v after the agent", took.Round(time.Millisecond))
	took = within(t, patient, "the application to be registered again", func() bool { return caller.knows("restart.app") })
	t.Logf("registered again %v later", took.Round(time.Millisecond))
	caller.register("", "restart.after", "1", app.addr)
	watch.awaitChange("create", "restart.after")
	events.awaitChange("create", "restart.after")
	caller.post("/after/say/hello", john).is(t, 200, helloJohn)
	at = toApp[1].count() + 100
	within(t, patient, "calls to go on", func() bool { return toApp[1].count() > at })
	toApp[0].clean("the application, called through its own sidecar")
	toApp[1].clean("the application, called through another sidecar")
	if caller.knows("restart.before") {
		t.Error("the agent came back with what it had: this test tests nothing")
	}
}
