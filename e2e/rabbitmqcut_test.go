//go:build unix

package e2e

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// TestRabbitMQCutOff has the network between a sidecar and RabbitMQ swallow
// everything: publishers are told so in time, with 503 or 504, and when it is
// back the messages flow again, to the application and to a WebSocket. Nothing
// that got a 200 is lost.
func TestRabbitMQCutOff(t *testing.T) {
	server := testserver.RabbitMQ(t)
	relay := testserver.NewRelay(t, server.Addr)
	l := newLedger("billing", "pull")
	app := newConsumer(t, l)
	s := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=rabbitmq", "MICRO_BROKER_ADDRESS=amqp://"+relay.Addr).
		sidecar(t, "--subscribe=topic=orders,queue=billing,ack_wait=2s,max_deliver=0,url=http://"+app.addr+"/billing")
	var addresses [1]atomic.Pointer[string]
	addresses[0].Store(&s.addr)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	p := puller{addresses: addresses[:], ledger: l, reliable: true}
	pulled := make(chan struct{})
	go func() {
		defer close(pulled)
		p.run(ctx)
	}()
	defer func() { <-pulled }()
	defer stop()
	awaitQueues(ctx, t, l, addresses[:])

	publish := func(id string) answer {
		l.offer(id)
		a := s.ask(http.MethodPost, "/broker?topic=orders", bodyOf(id), "Micro-Id", id)
		if a.status == http.StatusOK {
			l.publish(id)
		}
		return a
	}
	publish("cut/before").is(t, http.StatusOK, "")
	relay.Cut()
	if a := publish("cut/during"); a.status != http.StatusServiceUnavailable && a.status != http.StatusGatewayTimeout || a.took > 15*time.Second {
		t.Errorf("publishing into nothing: %d %s after %v, want 503 or 504 after 5s", a.status, strings.TrimSpace(a.body), a.took)
	}
	relay.Forget()
	start := time.Now()
	within(t, 2*patient, "publishing to work again", func() bool { return publish("cut/during").status == http.StatusOK })
	within(t, 2*patient, "messages to flow again", func() bool { return l.missing() == 0 })
	t.Logf("%v until messages flowed again", time.Since(start).Round(time.Millisecond))
}
