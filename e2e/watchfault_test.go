//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/micro/sidecar/internal/testserver"
)

// TestWatchAcrossRestarts kills an engine's server under watchers, restarts it
// and changes what it knows before they reach it again. They tell what is
// different now, each change once, and then go on.
func TestWatchAcrossRestarts(t *testing.T) {
	for name, open := range faultyEngines() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := open(t)
			address := strings.TrimPrefix(engine.env[1], "MICRO_REGISTRY_ADDRESS=")
			network := testserver.NewRelay(t, address)
			writer := newWorld(t, noConsul).with(engine.env...).sidecar(t, "--broker=embedded")
			away := newWorld(t, noConsul).with(registryAt(name, network.Addr)...)
			watcher := away.sidecar(t, "--broker=embedded")
			streams := watcher.watchers(away)
			streams["command on the engine"] = away.watchCommand(t)
			testWatchAway(t, name+".", writer, streams, func() *sidecar {
				network.Cut()
				network.Reset()
				engine.stop()
				engine.start()
				within(t, patient, "the watcher to notice", func() bool { return watcher.get("/readyz").status == 503 })
				writer.awaitReady()
				return writer
			}, func() {
				network.Heal()
				network.Reset()
			})
		})
	}
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, noConsul)
		host := w.sidecar(t)
		watcher := w.sidecar(t)
		testWatchAway(t, "embedded.", host, watcher.watchers(w), func() *sidecar {
			watcher.pause() // or it would be the next host
			host.kill()
			return w.sidecar(t)
		}, func() { watcher.signal(syscall.SIGCONT) })
	})
}

// testWatchAway changes things before, while and after the watchers are away.
// leave has them lose the engine and returns who can still change it; comeBack
// lets them have it again.
func testWatchAway(t *testing.T, prefix string, writer *sidecar, streams map[string]*changes, leave func() *sidecar, comeBack func()) {
	for what, s := range streams {
		s.probe(t, what, prefix+"probe", writer)
	}
	tell := func(want string) {
		t.Helper()
		for what, s := range streams {
			within(t, patient, what+" to tell "+want, func() bool { return slices.Contains(s.about(prefix), want) })
		}
	}
	remove := func(service string) {
		t.Helper()
		writer.ask("DELETE", "/registry", fmt.Sprintf(`{"Name":%q,"Nodes":[{"Id":"1"}]}`, service)).is(t, 200, "")
	}
	for _, service := range []string{"kept", "moved", "gone"} {
		writer.register("", prefix+service, "1", "127.0.0.1:7")
		tell("create " + prefix + service + " 1=127.0.0.1:7")
	}

	writer = leave()
	writer.register("", prefix+"kept", "1", "127.0.0.1:7") // Consul's agent has forgotten it
	writer.register("", prefix+"moved", "1", "127.0.0.1:8")
	writer.register("", prefix+"moved", "1", "127.0.0.1:9")
	remove(prefix + "gone")
	writer.register("", prefix+"new", "1", "127.0.0.1:7")
	writer.register("", prefix+"brief", "1", "127.0.0.1:7")
	remove(prefix + "brief")
	comeBack()
	tell("update " + prefix + "moved 1=127.0.0.1:9")
	tell("delete " + prefix + "gone 1=127.0.0.1:7")
	tell("create " + prefix + "new 1=127.0.0.1:7")

	writer.register("", prefix+"after", "1", "127.0.0.1:1")
	tell("create " + prefix + "after 1=127.0.0.1:1")
	writer.register("", prefix+"after", "1", "127.0.0.1:2")
	tell("update " + prefix + "after 1=127.0.0.1:2")
	remove(prefix + "after")
	tell("delete " + prefix + "after 1=127.0.0.1:2")

	want := []string{ // by service, in order
		"create " + prefix + "after 1=127.0.0.1:1", "update " + prefix + "after 1=127.0.0.1:2", "delete " + prefix + "after 1=127.0.0.1:2",
		"create " + prefix + "gone 1=127.0.0.1:7", "delete " + prefix + "gone 1=127.0.0.1:7",
		"create " + prefix + "kept 1=127.0.0.1:7",
		"create " + prefix + "moved 1=127.0.0.1:7", "update " + prefix + "moved 1=127.0.0.1:9",
		"create " + prefix + "new 1=127.0.0.1:7",
	}
	for what, s := range streams {
		if have := s.about(prefix); !slices.Equal(have, want) {
			t.Errorf("%s told\n%s\nwant\n%s", what, strings.Join(have, "\n"), strings.Join(want, "\n"))
		}
	}
}

// changes is what a watcher has told, whichever way it does.
type changes struct {
	read func() []string // all until now, as "create NAME ID=ADDRESS"
}

// watchers begins to watch a sidecar in all the ways that it has.
func (s *sidecar) watchers(w world) map[string]*changes {
	s.t.Helper()
	socket, events := s.open("/registry"), s.events("/registry")
	var frames, lines []string
	return map[string]*changes{
		"socket": {func() []string {
			for len(socket.frames) > 0 {
				frames = append(frames, told(s.t, string(<-socket.frames)))
			}
			return frames
		}},
		"events": {func() []string {
			for len(events) > 0 {
				lines = append(lines, told(s.t, <-events))
			}
			return lines
		}},
		"command": w.watchCommand(s.t, "--proxy_address="+s.addr),
	}
}

// watchCommand runs micro watch.
func (w world) watchCommand(t *testing.T, args ...string) *changes {
	t.Helper()
	p := w.micro(t, append([]string{"watch"}, args...)...)
	return &changes{func() []string {
		var all []string
		for line := range strings.Lines(p.out.String()) {
			if f := strings.Fields(line); strings.HasSuffix(line, "\n") {
				all = append(all, strings.Join(slices.Delete(f, 2, 3), " ")) // without the version
			}
		}
		return all
	}}
}

// told writes a change as [changes] has it.
func told(t *testing.T, text string) string {
	t.Helper()
	var c struct {
		Action  string
		Service struct {
			Name  string
			Nodes []struct {
				ID, Address string
				Port        int
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatalf("change %.200q: %v", text, err)
	}
	line := c.Action + " " + c.Service.Name
	for _, n := range c.Service.Nodes {
		line += fmt.Sprintf(" %s=%s:%d", n.ID, n.Address, n.Port)
	}
	return line
}

// about returns what was told of the services with a prefix, but the probes,
// by service and then in order.
func (c *changes) about(prefix string) []string {
	var all []string
	for _, line := range c.read() {
		if name := strings.Fields(line)[1]; strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, prefix+"probe") {
			all = append(all, line)
		}
	}
	slices.SortStableFunc(all, func(a, b string) int { return strings.Compare(strings.Fields(a)[1], strings.Fields(b)[1]) })
	return all
}

// probe returns when a watcher is live: a command does not say so.
func (c *changes) probe(t *testing.T, what, name string, writer *sidecar) {
	t.Helper()
	n := 0
	within(t, patient, what+" to be live", func() bool {
		n++
		writer.register("?ttl=1m", name, "1", fmt.Sprintf("127.0.0.1:%d", n%60000+1))
		return slices.ContainsFunc(c.read(), func(line string) bool { return strings.Contains(line, " "+name+" ") })
	})
}
