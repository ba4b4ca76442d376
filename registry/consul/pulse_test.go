package consul

import (
	"context"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// A blocking query whose connection was forgotten on the way would wait for
// more than a minute. It begins anew when the agent answers other requests
// again.
func TestCutOff(t *testing.T) {
	s := testserver.Consul(t)
	direct := open(t, s)
	relay := testserver.NewRelay(t, s.Addr)
	r := open(t, &testserver.ConsulServer{Addr: relay.Addr})
	register(t, direct, greeter("svc", "n", 1), time.Hour)

	events := make(chan registry.Event, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = r.WatchName(ctx, "svc", func(e registry.Event) { events <- e }) // ctx's error
	}()
	defer func() { stop(); <-ended }()
	await := func(what string, nodes int) {
		t.Helper()
		deadline := time.After(30 * time.Second) // less than a query waits
		for {
			select {
			case e := <-events:
				if len(e.Services) == 1 && len(e.Services[0].Nodes) == nodes {
					return
				}
			case <-deadline:
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	await("the first picture", 1)

	relay.Cut()
	failing := time.Now()
	for time.Since(failing) < awayTime+500*time.Millisecond {
		ask, done := context.WithTimeout(t.Context(), 500*time.Millisecond)
		if err := r.Ping(ask); err == nil {
			t.Error("Ping of an agent that is cut off")
		}
		done()
	}
	register(t, direct, greeter("svc", "n2", 2), time.Hour)
	relay.Forget()
	eventually(t, "the agent to answer", func() bool {
		ask, done := context.WithTimeout(t.Context(), 5*time.Second)
		defer done()
		return r.Ping(ask) == nil
	})
	await("what changed meanwhile", 2)
	register(t, direct, greeter("svc", "n3", 3), time.Hour)
	await("a change after that", 3)
}
