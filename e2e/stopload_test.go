//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// TestStopUnderMessages stops one sidecar after the other in order, hosts of the
// engine among them, while messages are published one by one and in batches,
// pushed, pulled and fanned out: nothing is lost, nothing counts as an attempt, so
// that nothing is a dead letter, and each stop ends inside its grace time.
func TestStopUnderMessages(t *testing.T) {
	const grace = 10 * time.Second
	l := newLedger("billing", "audit", "pull")
	app := newConsumer(t, l)
	app.reliable = true
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_SHUTDOWN_GRACE="+grace.String())
	var sidecars [2]*sidecar
	var addresses [2]atomic.Pointer[string]
	begin := func(i int) {
		t.Helper()
		sidecars[i] = w.sidecar(t,
			"--subscribe=topic=orders,queue=billing,ack_wait=5s,max_deliver=1,url=http://"+app.addr+"/billing",
			"--subscribe=topic=orders,queue=audit,ordered=true,ack_wait=5s,max_deliver=1,url=http://"+app.addr+"/audit")
		addresses[i].Store(&sidecars[i].addr)
	}
	begin(0)
	begin(1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	reading, end := context.WithCancel(t.Context())
	p := puller{addresses: addresses[:], ledger: l, reliable: true}
	var publishers, pullers sync.WaitGroup
	defer pullers.Wait()
	defer end()
	pullers.Go(func() { p.run(reading) })
	awaitQueues(ctx, t, l, addresses[:])
	for key := range 3 {
		publishers.Go(func() { publishOrders(ctx, fmt.Sprintf("key%d", key), addresses[:], l) })
	}
	publishers.Go(func() { publishBatches(ctx, addresses[:], l) })

	for round := range 4 {
		s := sidecars[round%2]
		live := s.subscribe("news", "")
		before := l.stored()
		within(t, patient, "messages to be published", func() bool { return l.stored() > before+100 })
		const news = 20
		for i := range news {
			s.post("/broker?topic=news", fmt.Sprint(i)).is(t, 200, "")
		}
		begun := time.Now()
		l.strike()
		s.signal(syscall.SIGTERM)
		if status := s.wait(patient); status != 0 {
			t.Errorf("exit status %d after %v", status, time.Since(begun))
		}
		if took := time.Since(begun); took > grace+time.Second {
			t.Errorf("the stop took %v", took)
		}
		if err := <-live.ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("a live subscriber's connection ended with %v, want 1001", err)
		}
		for i := range news { // all that was there was sent before the connection ended
			if m := live.message(); string(m.Body) != fmt.Sprint(i) {
				t.Errorf("a live subscriber got %q, want %d", m.Body, i)
			}
		}
		begin(round % 2)
	}
	stop()
	publishers.Wait()
	awaitAll(t, w, l)
	for _, fault := range l.faults("audit") {
		t.Error(fault)
	}
	noDeadLetters(t, w)
	t.Logf("%d messages, %d duplicates%s", l.stored(), l.duplicates(), l.report())
}

// publishBatches publishes batches, each until it got a 200.
func publishBatches(ctx context.Context, addresses []atomic.Pointer[string], l *ledger) {
	const size = 20
	client := &http.Client{Timeout: 6 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for n := 0; ctx.Err() == nil; n += size {
		var lines strings.Builder
		var messages []string
		for i := range size {
			messages = append(messages, fmt.Sprintf("batch/%06d", n+i))
			l.offer(messages[i])
			fmt.Fprintf(&lines, "%q\n", bodyOf(messages[i]))
		}
		for ctx.Err() == nil {
			address := *addresses[rand.IntN(len(addresses))].Load() + "/broker?topic=orders&batch=ndjson"
			if postOrder(ctx, client, address, "batch", messages[0], lines.String()) == nil {
				for _, m := range messages {
					l.publish(m)
				}
				break
			}
		}
	}
}
