package nats_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/testserver"
)

// external opens a broker on servers.
func external(t *testing.T, query string, servers ...*testserver.NATSServer) *nats.External {
	t.Helper()
	u := &url.URL{Scheme: "nats", RawQuery: query}
	for i, s := range servers {
		if i > 0 {
			u.Host += ","
		}
		u.Host += s.Addr
	}
	b, err := nats.Open(bounded(t, time.Minute), u, nats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// A cluster keeps a new stream on three servers and goes on without one; what
// the address asks for holds for a stream that is there.
func TestReplicas(t *testing.T) {
	servers := testserver.NATSCluster(t, 3)
	b := external(t, "", servers...)
	m, err := b.Join(bounded(t, 30*time.Second), "orders", "billing", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	replicas := func() [2]int {
		return [2]int{b.Replicas(t, nats.DefaultStream), b.Replicas(t, nats.DefaultStream+"-state")}
	}
	if got := replicas(); got != [2]int{3, 3} {
		t.Errorf("replicas: %v, want 3", got)
	}
	servers[0].Stop()
	for ctx, body := bounded(t, time.Minute), []byte("x"); ; {
		// One that the lost leader had taken is never answered: a sidecar gives
		// each request as long.
		if err = b.Publish(bounded(t, 5*time.Second), "orders", broker.Message{Body: body}); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("without one of three servers: %v", err)
		}
	}
	held, err := m.Receive(bounded(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Ack(bounded(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
	servers[0].Start()

	one := external(t, "replicas=1", servers...)
	if err := one.Declare(bounded(t, time.Minute), "orders", "other", broker.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := replicas(); got != [2]int{1, 1} {
		t.Errorf("replicas: %v, want 1 as asked for", got)
	}
	external(t, "", servers...)
	if got := replicas(); got != [2]int{1, 1} {
		t.Errorf("replicas: %v, want 1 as it was", got)
	}
}
