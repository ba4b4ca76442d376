//go:build unix

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/testserver"
)

// What is published as soon as a sidecar is ready, or has read its file again,
// is kept for the durable queues of its file.
func TestReadyMeansSubscribed(t *testing.T) {
	for name, open := range map[string]func(*testing.T, world) world{
		"embedded": func(_ *testing.T, w world) world { return w },
		"redis": func(t *testing.T, w world) world {
			return w.with("MICRO_BROKER=redis", "MICRO_BROKER_ADDRESS=redis://"+testserver.Redis(t).Addr)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket, told := notifySocket(t)
			w := open(t, newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "NOTIFY_SOCKET="+socket))
			l := newLedger("q")
			app := newConsumer(t, l)
			app.reliable = true
			path := filepath.Join(w.home, "micro.yaml")
			subscribe := func(topics int) {
				t.Helper()
				text := "subscribe:\n"
				for i := range topics {
					text += fmt.Sprintf("  - { topic: topic%d, queue: q, url: \"http://%s/q\" }\n", i, app.addr)
				}
				if err := os.WriteFile(path+".next", []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(path+".next", path); err != nil {
					t.Fatal(err)
				}
			}
			subscribe(1)
			s := w.sidecar(t, "--config="+path)
			const topics = 5
			for i := range topics {
				message := fmt.Sprint("topic", i, "/1")
				l.offer(message)
				s.ask("POST", fmt.Sprint("/broker?topic=topic", i), bodyOf(message)).is(t, 200, "")
				l.publish(message)
				within(t, patient, "the service manager to know", func() bool { return slices.Contains(told(), "READY=1") })
				if i == topics-1 {
					break
				}
				subscribe(i + 2) // which it notices by itself, once
				within(t, patient, "the end of the reload", func() bool {
					return strings.Count(strings.Join(told(), "\n"), "READY=1") == i+2 && strings.Count(s.log.String(), "configuration reloaded") == i+1
				})
			}
			within(t, patient, "every message to come", func() bool { return l.missing() == 0 })
		})
	}
}
