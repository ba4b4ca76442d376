//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// takeOver is how soon the others serve again after the host was killed.
const takeOver = 2 * time.Second

// three starts three sidecars that share a data directory; the first hosts.
func three(t *testing.T, args ...string) (world, [3]*sidecar) {
	t.Helper()
	w := newWorld(t, noConsul)
	return w, [3]*sidecar{w.sidecar(t, args...), w.sidecar(t, args...), w.sidecar(t, args...)}
}

func TestSharedDataDir(t *testing.T) {
	t.Parallel()
	w, s := three(t)
	app := newGreeter(t)
	for i, from := range s {
		name := fmt.Sprintf("shared.%d", i)
		from.register("", name, "1", app.addr)
		for j, k := range s {
			if !k.knows(name) {
				t.Errorf("sidecar %d does not see at once what %d registered", j, i)
			}
			k.post("/rpc", `{"service":"`+name+`","method":"Say.Hello","request":`+john+`}`).is(t, 200, helloJohn)
		}
		w.succeed(t, "get", "service", name)
	}
	// Another data directory is another world.
	elsewhere := newWorld(t, noConsul)
	other := elsewhere.sidecar(t)
	if other.knows("shared.0") {
		t.Error("two data directories see each other")
	}
	sub, stranger := s[1].subscribe("shared", ""), other.subscribe("shared", "")
	w.succeed(t, "publish", "shared", "from a command")
	if m := sub.message(); string(m.Body) != "from a command" {
		t.Errorf("message %v", m)
	}
	stranger.quiet("a message of another data directory")
	w.succeed(t, "deregister", "service", `{"Name":"shared.0","Nodes":[{"Id":"1"}]}`)
	for j, k := range s {
		if k.knows("shared.0") {
			t.Errorf("sidecar %d still sees what a command removed", j)
		}
	}
	if out := w.succeed(t, "list", "services"); out != "shared.1\nshared.2\n" {
		t.Errorf("list services: %q", out)
	}
}

// TestHostKilled kills the host while the others are called, registered with
// and publish.
func TestHostKilled(t *testing.T) {
	t.Parallel()
	w, s := three(t, "--namespace=killed")
	host, b, c := s[0], s[1], s[2]
	app := newGreeter(t)
	const services = 50
	for i := range services {
		s[i%3].register("", fmt.Sprintf("killed.app%d", i), "1", app.addr)
	}
	host.register("?ttl=1h", "killed.mortal", "1", app.addr)
	subs := []*socket{b.subscribe("killed", ""), c.subscribe("killed", "")}
	queue := []*socket{b.subscribe("killed", "q"), c.subscribe("killed", "q")}
	watch := c.open("/registry")
	for _, k := range []*sidecar{b, c} {
		k.post("/app0/say/hello", john).is(t, 200, helloJohn)
	}
	loads := []*load{b.load("/app0/say/hello", john, contentType, jsonType), c.load("/app0/say/hello", john, contentType, jsonType)}
	// Registering may be done twice, so not one need fail; publishing may not.
	registrations := c.load("/registry?ttl=1m", `{"Name":"killed.often","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, contentType, jsonType)
	follower := w.micro(t, "subscribe", "killed")
	within(t, patient, "the command to be subscribed", func() bool { return strings.Contains(follower.log.String(), "subscribed to killed") })
	within(t, patient, "the load to run", func() bool { return loads[0].count() > 50 && loads[1].count() > 50 && registrations.count() > 50 })

	host.kill()
	killed := time.Now()
	served := map[string]time.Duration{}
	serve := func(what string, ok func() bool) {
		t.Helper()
		within(t, takeOver+2*time.Second, what, ok)
		served[what] = time.Since(killed).Round(time.Millisecond)
		if served[what] > takeOver {
			t.Errorf("%s after %v, want %v", what, served[what], takeOver)
		}
	}
	serve("a message published", func() bool { return b.ask("POST", "/broker?topic=killed", "after").status == 200 })
	serve("a service registered", func() bool {
		return c.post("/registry", `{"Name":"killed.new","Nodes":[{"Id":"1","Address":"`+app.addr+`"}]}`).status == 200
	})
	serve("b ready", func() bool { return b.get("/readyz").status == 200 })
	serve("c ready", func() bool { return c.get("/readyz").status == 200 })
	t.Logf("after kill -9: %v", served)

	// Nothing is lost, and what was open goes on.
	for i := range services {
		if name := fmt.Sprintf("killed.app%d", i); !b.knows(name) || !c.knows(name) {
			t.Errorf("%s is lost", name)
		}
	}
	if !b.knows("killed.mortal") {
		t.Error("killed.mortal is lost")
	}
	watch.awaitChange("create", "killed.new")
	// Both are ready, so their subscriptions are live on the new host. What was
	// published in between they may have missed.
	const messages = 20
	for i := range messages {
		s[1+i%2].ask("POST", "/broker?topic=killed", strconv.Itoa(i)).is(t, 200, "")
	}
	for _, k := range subs {
		for i := 0; i < messages; {
			if m := k.message(); string(m.Body) == "after" {
				continue
			} else if string(m.Body) != strconv.Itoa(i) {
				t.Errorf("message %d: %s", i, m.Body)
			}
			i++
		}
	}
	seen := map[string]int{}
	within(t, patient, "the queue to have every message", func() bool {
		for _, k := range queue {
			for len(k.frames) > 0 {
				seen[string(k.message().Body)]++
			}
		}
		delete(seen, "after")
		return len(seen) == messages
	})
	for body, n := range seen {
		if n != 1 {
			t.Errorf("message %s came to the queue %d times", body, n)
		}
	}
	registrations.clean("registrations through c")
	within(t, patient, "the command to go on", func() bool { return strings.HasSuffix(follower.out.String(), strconv.Itoa(messages-1)+"\n") })
	follower.signal(syscall.SIGINT)
	if status := follower.wait(patient); status != 0 {
		t.Errorf("the command ended with status %d: %s", status, follower.log.String())
	}
	loads[0].clean("calls through b")
	loads[1].clean("calls through c")
}

// TestHostStopped stops the host in order, and then its successor.
func TestHostStopped(t *testing.T) {
	t.Parallel()
	w, s := three(t, "--namespace=handed")
	app := newGreeter(t)
	s[0].register("", "handed.app", "1", app.addr)
	sub := s[2].subscribe("handed", "")
	s[2].post("/app/say/hello", john).is(t, 200, helloJohn)
	calls := s[2].load("/app/say/hello", john, contentType, jsonType)
	registrations := s[2].load("/registry?ttl=1m", `{"Name":"handed.often","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, contentType, jsonType)
	for i := range 2 {
		s[i].stop()
		took := within(t, takeOver, "the next host to serve", func() bool {
			return s[2].ask("POST", "/broker?topic=handed", strconv.Itoa(i)).status == 200
		})
		t.Logf("served again %v after the host's end", took.Round(time.Millisecond))
		if m := sub.message(); string(m.Body) != strconv.Itoa(i) {
			t.Errorf("message %s, want %d", m.Body, i)
		}
		if !s[2].knows("handed.app") {
			t.Error("the registration is lost")
		}
	}
	calls.clean("calls through the last sidecar")
	registrations.clean("registrations through the last sidecar")
	s[2].stop()
	w.fails(t, 1, "no sidecar is running", "list", "services")
	again := w.sidecar(t)
	if !again.knows("handed.app") {
		t.Error("the registration did not survive the last sidecar")
	}
}

// TestHostPaused has a host that holds everything and answers nothing.
func TestHostPaused(t *testing.T) {
	t.Parallel()
	w, s := three(t, "--namespace=paused")
	host, b, c := s[0], s[1], s[2]
	app := newGreeter(t)
	b.register("", "paused.app", "1", app.addr)
	sub := c.subscribe("paused", "")
	for _, k := range []*sidecar{b, c} {
		k.post("/app/say/hello", john).is(t, 200, helloJohn)
	}
	loads := []*load{b.load("/app/say/hello", john, contentType, jsonType), c.load("/app/say/hello", john, contentType, jsonType)}
	leaving := w.sidecar(t, "--server_name=paused.leaving", "--server_address="+app.addr)
	within(t, patient, "an application to be registered", func() bool { return b.knows("paused.leaving") })
	host.pause()

	const limit = 12 * time.Second // 5 s for the engine, and room for a busy machine
	late, notEven := w.launch(t, "--namespace=paused"), w.launch(t)
	answers := map[string]<-chan answer{}
	for what, ask := range map[string]func() answer{
		"list":    func() answer { return b.get("/registry") },
		"get":     func() answer { return c.get("/registry?service=paused.app") },
		"unknown": func() answer { return c.post("/nosuch/say/hello", john) },
		"register": func() answer {
			return b.post("/registry", `{"Name":"paused.new","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`)
		},
		"publish":   func() answer { return b.ask("POST", "/broker?topic=paused", "x") },
		"readiness": func() answer { return c.get("/readyz") },
	} {
		answered := make(chan answer, 1)
		answers[what] = answered
		go func() { answered <- ask() }()
	}
	late.get("/livez").is(t, 200, "ok\n")
	late.get("/readyz").refused(t, 503, "")
	for what, k := range map[string]*sidecar{"ready": leaving, "starting": notEven} { // they can go
		begun := time.Now()
		k.stop()
		t.Logf("a sidecar that was %s stopped in %v", what, time.Since(begun).Round(time.Millisecond))
	}
	for what, answered := range answers {
		a := <-answered
		if !honest(what, a) || a.took > limit {
			t.Errorf("%s beside a paused host: %d %s after %v", what, a.status, a.body, a.took)
		}
		t.Logf("%s: %d after %v: %.150s", what, a.status, a.took.Round(time.Millisecond), a.body)
	}
	late.get("/readyz").refused(t, 503, "")
	status, _, stderr := w.run(t, "list", "services")
	if status != 1 || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a command beside a paused host: %d %s", status, stderr)
	}

	host.signal(syscall.SIGCONT)
	for _, k := range []*sidecar{b, c, late} {
		took := within(t, patient, "a sidecar to recover", func() bool { return k.get("/readyz").status == 200 })
		t.Logf("recovered after %v", took.Round(time.Millisecond))
	}
	loads[0].clean("calls through b")
	loads[1].clean("calls through c")
	late.post("/app/say/hello", john).is(t, 200, helloJohn)
	late.ask("POST", "/broker?topic=paused", "again").is(t, 200, "")
	for string(sub.message().Body) != "again" { // the one that timed out may have arrived
		continue
	}
}

func TestDataDirs(t *testing.T) {
	t.Parallel()
	t.Run("NoHost", func(t *testing.T) {
		w := newWorld(t, noConsul)
		for _, args := range [][]string{
			{"list", "services"}, {"get", "service", "x"}, {"call", "x", "Say.Hello", "{}"}, {"publish", "t", "x"},
			{"register", "service", `{"Name":"x","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`}, {"subscribe", "t"}, {"watch"}, {"health", "x"},
		} {
			w.fails(t, 1, "no sidecar is running", args...)
		}
		if out := command(t, w.home, "find", ".", "-type", "f"); out != "" {
			t.Errorf("commands made files: %s", out)
		}
	})
	t.Run("Newer", func(t *testing.T) {
		dir := t.TempDir()
		store := filepath.Join(dir, "engine", "store")
		if err := os.MkdirAll(store, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(store, "format"), []byte("7\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p := newWorld(t, noConsul).micro(t, "sidecar", "--address=127.0.0.1:0", "--data_dir="+dir)
		if status := p.wait(patient); status != 1 || !strings.Contains(p.log.String(), "was written by a newer micro (format 7") {
			t.Errorf("exit status %d, said %s", status, p.log.String())
		}
	})
	t.Run("NotWritable", func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w := newWorld(t, noConsul).with("MICRO_DATA_DIR=" + filepath.Join(file, "data"))
		s := w.sidecar(t)
		if !strings.Contains(s.log.String(), "is not writable") {
			t.Errorf("no warning: %s", s.log.String())
		}
		s.register("", "temporary", "1", "127.0.0.1:1")
		s.ask("POST", "/broker?topic=t", "x").is(t, 200, "")
	})
}
