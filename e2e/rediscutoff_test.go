//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// publishLimit is how long publishing may take: the 5 s of the documentation,
// and what a busy machine adds.
const publishLimit = 12 * time.Second

// TestRedisCutOff has the network between a sidecar and its Redis server fail
// while messages are published and taken. Who publishes is told in time, no
// message that got a 200 is lost, and when the network is back subscribers of
// every kind go on: none of them waits for an ack_wait.
func TestRedisCutOff(t *testing.T) {
	for name, fault := range linkFaults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			line := testserver.NewRelay(t, testserver.Redis(t).Addr)
			w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded", "MICRO_BROKER=redis", "MICRO_BROKER_ADDRESS=redis://"+line.Addr)
			c := newCutMessages(t, w)
			for range 2 {
				failures, stored := c.failures.Load(), c.stored.Load()
				fault.begin(line)
				within(t, patient, "publishing to fail, or to go on", func() bool {
					return c.failures.Load() > failures || !fault.silent && c.stored.Load() > stored+5
				})
				fault.end(line)
				c.recover()
			}
			c.finish()
		})
	}
}

// cutMessages is a sidecar whose engine is cut off, with publishers and with a
// subscriber of each kind.
type cutMessages struct {
	t        *testing.T
	world    world
	sidecar  *sidecar
	ledger   *ledger
	live     *socket
	stop     context.CancelFunc
	work     sync.WaitGroup
	rounds   int
	stored   atomic.Int64 // messages of the publishers
	failures atomic.Int64 // answers that were not 200
}

func newCutMessages(t *testing.T, w world) *cutMessages {
	c := &cutMessages{t: t, world: w, ledger: newLedger("audit", "pull")}
	app := newConsumer(t, c.ledger)
	app.reliable = true
	c.sidecar = w.sidecar(t, "--subscribe=topic=orders,queue=audit,ordered=true,max_deliver=0,url=http://"+app.addr+"/audit")
	c.live = c.sidecar.subscribe("orders", "")
	var ctx context.Context
	ctx, c.stop = context.WithCancel(t.Context())
	t.Cleanup(func() { c.stop(); c.work.Wait() })
	addresses := make([]atomic.Pointer[string], 1)
	addresses[0].Store(&c.sidecar.addr)
	p := puller{addresses: addresses, ledger: c.ledger, reliable: true}
	pulling, end := context.WithCancel(context.Background())
	var pullers sync.WaitGroup
	pullers.Go(func() { p.run(pulling) })
	t.Cleanup(func() { end(); pullers.Wait() })
	awaitQueues(ctx, t, c.ledger, addresses)
	for key := range 3 {
		c.work.Go(func() { c.publishAll(ctx, fmt.Sprintf("key%d", key)) })
	}
	return c
}

// publishAll publishes until ctx ends.
func (c *cutMessages) publishAll(ctx context.Context, key string) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		if c.publish(ctx, key, fmt.Sprintf("%s/%06d", key, n)) {
			c.stored.Add(1)
		}
		<-pace.C
	}
}

// publish publishes a message until that got a 200 or ctx has ended.
func (c *cutMessages) publish(ctx context.Context, key, message string) bool {
	c.ledger.offer(message)
	for ctx.Err() == nil {
		a := c.sidecar.ask("POST", "/broker?topic=orders", bodyOf(message), "Micro-Id", message, "Micro-Key", key)
		if a.took > publishLimit {
			c.t.Errorf("publishing took %v: %d %s", a.took, a.status, a.body)
		}
		switch a.status {
		case 200:
			c.ledger.publish(message)
			return true
		case 503, 504:
			c.failures.Add(1)
		default:
			c.t.Errorf("publishing: %d %s", a.status, a.body)
			return false
		}
	}
	return false
}

// recover returns when everybody gets new messages again.
func (c *cutMessages) recover() {
	c.t.Helper()
	c.rounds++
	begun := time.Now()
	say := func(what string) { c.t.Logf("%s after %v", what, time.Since(begun).Round(time.Millisecond)) }
	key := fmt.Sprintf("after%d", c.rounds)
	n := 0
	var first string
	within(c.t, patient, "the live subscriber to hear again", func() bool {
		n++
		message := fmt.Sprintf("%s/%06d", key, n)
		if c.publish(c.t.Context(), key, message); n == 1 {
			first = message
			say("published")
		}
		return c.hears(message)
	})
	say("heard live")
	within(c.t, patient, "the durable queues to go on", func() bool { return c.ledger.has(first) })
	say("durable queues")
}

// hears tells that the live subscriber gets the message within an instant.
func (c *cutMessages) hears(message string) bool {
	instant := time.After(200 * time.Millisecond)
	for {
		select {
		case frame := <-c.live.frames:
			var m struct{ Body []byte }
			if json.Unmarshal(frame, &m) == nil && string(m.Body) == bodyOf(message) {
				return true
			}
		case <-instant:
			return false
		}
	}
}

func (c *cutMessages) finish() {
	c.t.Helper()
	c.stop()
	c.work.Wait()
	awaitAll(c.t, c.world, c.ledger)
	for _, fault := range c.ledger.faults("audit") {
		c.t.Error(fault)
	}
	noDeadLetters(c.t, c.world)
	c.t.Logf("%d messages, %d answers that were not 200, %d duplicates", c.ledger.stored(), c.failures.Load(), c.ledger.duplicates())
}
