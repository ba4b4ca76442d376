//go:build unix

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
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
	for name, test := range map[string]struct {
		cut, heal func(*testserver.Relay)
		silent    bool // publishing does not work meanwhile
	}{
		"both ways":     {(*testserver.Relay).Cut, (*testserver.Relay).Heal, true},
		"for ever":      {(*testserver.Relay).Cut, (*testserver.Relay).Forget, true},
		"to the server": {(*testserver.Relay).CutToServer, (*testserver.Relay).Heal, true},
		"from it":       {(*testserver.Relay).CutToClient, (*testserver.Relay).Heal, true},
		"resets":        {(*testserver.Relay).Reset, (*testserver.Relay).Reset, false},
		"slow":          {func(r *testserver.Relay) { r.Slow(100*time.Millisecond, 64<<10) }, (*testserver.Relay).Heal, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testNATSCutOff(t, test.cut, test.heal, test.silent)
		})
	}
}

func testNATSCutOff(t *testing.T, cut, heal func(*testserver.Relay), silent bool) {
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
	cut(relay)
	if silent {
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		begun := time.Now()
		l.offer("doubtful/1")
		status := statusOfOrder(ctx, far.addr, bodyOf("doubtful/1"))
		cancel()
		// It is said after 5 s; this machine may be busy.
		if took := time.Since(begun); status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout || took > 15*time.Second {
			t.Errorf("publishing while cut off: %d after %v", status, took)
		}
	}
	publish(4 * time.Second) // longer than a turn of this queue lasts without a word
	heal(relay)
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

// statusOfOrder publishes a message once; 0 is no answer.
func statusOfOrder(ctx context.Context, address, body string) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/broker?topic=orders", strings.NewReader(body))
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
