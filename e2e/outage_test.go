//go:build unix

package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// valve stands before a server. While it is shut, connections are taken and
// nothing comes through, as from a server under SIGSTOP.
type valve struct {
	addr string
	mu   sync.RWMutex // held for writing while it is shut
}

func newValve(t *testing.T, server string) *valve {
	t.Helper()
	v := &valve{}
	v.addr = rawNode(t, func(from net.Conn) {
		to, err := net.Dial("tcp", server)
		if err != nil {
			return
		}
		var back sync.WaitGroup
		back.Go(func() {
			v.pass(from, to)
			_ = from.Close() // the server has ended it
		})
		v.pass(to, from)
		_ = to.Close() // the client has ended it
		back.Wait()
	})
	return v
}

func (v *valve) pass(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		v.mu.RLock()
		_, werr := to.Write(buffer[:n])
		v.mu.RUnlock()
		if err != nil || werr != nil {
			return
		}
	}
}

// TestConsulHangs has an agent that is there and does not answer.
func TestConsulHangs(t *testing.T) {
	t.Parallel()
	v := newValve(t, testserver.Consul(t).Addr)
	w := newWorld(t, noConsul).with(registryAt("consul", v.addr)...)
	app := newGreeter(t)
	s := w.sidecar(t, "--namespace=hangs", "--server_name=hangs.app", "--server_address="+app.addr)
	within(t, patient, "the application to be registered", func() bool { return s.post("/app/say/hello", john).status == 200 })
	leaving := w.sidecar(t, "--server_name=hangs.leaving", "--server_address="+app.addr)
	within(t, patient, "an application to be registered", func() bool { return s.knows("hangs.leaving") })
	sub := s.subscribe("hangs", "")
	s.ask("POST", "/broker?topic=hangs", "before").is(t, 200, "")
	calls := s.load("/app/say/hello", john, contentType, jsonType)

	v.mu.Lock()
	reopen := sync.OnceFunc(v.mu.Unlock)
	defer reopen()
	s.get("/readyz").refused(t, 503, "consul")
	const limit = 12 * time.Second // 5 s for the engine, and room for a busy machine
	answers := map[string]<-chan answer{}
	for what, ask := range map[string]func() answer{
		"list":    func() answer { return s.get("/registry") },
		"get":     func() answer { return s.get("/registry?service=hangs.app") },
		"unknown": func() answer { return s.post("/nosuch/say/hello", john) },
		"register": func() answer {
			return s.post("/registry", `{"Name":"hangs.new","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`)
		},
		"other": func() answer { return s.ask("POST", "/broker?topic=hangs.other", "x") },
	} {
		answered := make(chan answer, 1)
		answers[what] = answered
		go func() { answered <- ask() }()
	}
	for what, answered := range answers {
		a := <-answered
		if !honest(what, a) || a.took > limit {
			t.Errorf("%s with a hanging agent: %d %s after %v", what, a.status, a.body, a.took)
		}
		t.Logf("%s: %d after %v: %.150s", what, a.status, a.took.Round(time.Millisecond), a.body)
	}
	begun := time.Now()
	leaving.stop()
	t.Logf("a sidecar stopped in %v", time.Since(begun).Round(time.Millisecond))

	reopen()
	took := within(t, patient, "/readyz to recover", func() bool { return s.get("/readyz").status == 200 })
	t.Logf("recovered after %v", took.Round(time.Millisecond))
	s.register("", "hangs.after", "1", app.addr)
	s.post("/after/say/hello", john).is(t, 200, helloJohn)
	s.ask("POST", "/broker?topic=hangs", "after").is(t, 200, "")
	for string(sub.message().Body) != "after" {
		continue
	}
	calls.clean("calls with a hanging agent")
}

// honest reports whether an answer is fit for an engine that does not answer:
// what was asked of it fails, and what is known may still be told.
func honest(what string, a answer) bool {
	known := what == "get" || what == "other"
	return a.status == 503 || a.status == 504 || known && a.status == 200
}

// testSubscriberKilled kills a sidecar with subscribers: the others get what
// is published, and publishing does not slow down.
func testSubscriberKilled(t *testing.T, w world) {
	const topic = "subscriber.killed"
	a, b := w.sidecar(t), w.sidecar(t)
	dead := w.sidecar(t)
	dead.subscribe(topic, "")
	dead.subscribe(topic, "q")
	plain, queued := b.subscribe(topic, ""), b.subscribe(topic, "q")
	a.ask("POST", "/broker?topic="+topic, "0").is(t, 200, "")
	plain.message()
	dead.kill()
	for len(queued.frames) > 0 {
		queued.message()
	}
	var longest time.Duration
	const messages = 30
	for range messages {
		p := a.ask("POST", "/broker?topic="+topic, "x")
		p.is(t, 200, "")
		longest = max(longest, p.took)
	}
	for range messages {
		plain.message()
		queued.message()
	}
	t.Logf("the longest publish took %v", longest.Round(time.Millisecond))
	if longest > 4*time.Second {
		t.Errorf("a publish took %v", longest)
	}
}
