//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// TestNATSCutOff has the network between a sidecar and the messages' NATS
// server fail, while the sidecar publishes, pushes messages, pushes others in
// order and has a WebSocket pull. Another sidecar of the same queues is not cut
// off. Publishers are told in time, nothing that got a 200 is lost, order is
// kept, and soon after the network is back all is as before.
func TestNATSCutOff(t *testing.T) {
	for name, fault := range linkFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testNATSCutOff(t, fault)
		})
	}
}

func testNATSCutOff(t *testing.T, fault linkFault) {
	server := testserver.NATS(t)
	relay := testserver.NewRelay(t, server.Addr)
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=nats")
	l := newLedger("billing", "audit", "pull")
	app := newConsumer(t, l)
	args := []string{
		"--subscribe=topic=orders,queue=billing,ack_wait=2s,max_deliver=0,url=http://" + app.addr + "/billing",
		"--subscribe=topic=orders,queue=audit,ordered=true,ack_wait=2s,max_deliver=0,url=http://" + app.addr + "/audit",
	}
	far := w.with("MICRO_BROKER_ADDRESS=nats://"+relay.Addr).sidecar(t, args...)
	near := w.with("MICRO_BROKER_ADDRESS=nats://"+server.Addr).sidecar(t, args...)
	var farAddress, nearAddress [1]atomic.Pointer[string]
	farAddress[0].Store(&far.addr)
	nearAddress[0].Store(&near.addr)
	reading, end := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer end()
	p := puller{addresses: farAddress[:], ledger: l, reliable: true}
	clients.Go(func() { p.run(reading) })
	awaitQueues(t.Context(), t, l, nearAddress[:])

	publish := func(d time.Duration) {
		ctx, stop := context.WithTimeout(t.Context(), d)
		defer stop()
		var publishers sync.WaitGroup
		publishers.Go(func() { publishOrders(ctx, fmt.Sprint("near", d), nearAddress[:], l) })
		publishers.Go(func() { publishOrders(ctx, fmt.Sprint("far", d), farAddress[:], l) })
		publishers.Wait()
	}
	publish(time.Second)
	within(t, 2*patient, "all messages of before", func() bool { return l.missing() == 0 })
	before := far.cost().goroutines

	l.strike()
	fault.begin(relay)
	if fault.silent {
		l.offer("doubtful/1")
		a := far.ask(http.MethodPost, "/broker?topic=orders", bodyOf("doubtful/1"))
		// It is said after 5 s; this machine may be busy.
		if a.status != http.StatusServiceUnavailable && a.status != http.StatusGatewayTimeout || a.took > 15*time.Second {
			t.Errorf("publishing while cut off: %d after %v", a.status, a.took)
		}
	}
	publish(4 * time.Second) // longer than a turn of this queue lasts without a word
	fault.end(relay)
	healed := time.Now()
	publish(1100 * time.Millisecond)
	t.Logf("published again %v after the network was back", time.Since(healed).Round(10*time.Millisecond))
	within(t, 2*patient, "all messages to come"+l.missed(), func() bool { return l.missing() == 0 })
	t.Logf("all had come %v after it; %d messages, %d duplicates", time.Since(healed).Round(10*time.Millisecond), l.stored(), l.duplicates())
	for _, fault := range l.faults("audit") {
		t.Error(fault)
	}
	noDeadLetters(t, w.with("MICRO_BROKER_ADDRESS=nats://"+server.Addr))
	// A few may still wait for something that has an end.
	within(t, 2*patient, "the goroutines of the time of the fault to end", func() bool { return far.cost().goroutines < before+20 })
}
