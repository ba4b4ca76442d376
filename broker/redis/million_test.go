package redis_test

import (
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// Nothing that is done to a queue takes the longer the more waits in it.
func TestMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("a million messages")
	}
	t.Parallel()
	server := testserver.Redis(t, "--appendfsync", "no")
	b := open(t, server)
	defer b.Close()
	const n = 1_000_000
	for _, queue := range []string{"q", "other"} {
		if err := b.Declare(within(t), "orders", queue, broker.QueueOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // the server does nothing else meanwhile
		server.Do(t, "EVAL", `for _ = 1, 100000 do
			local id = redis.call('XADD', KEYS[1] .. 'log', '*', 'm', '\n0')
			redis.call('HSET', KEYS[1] .. 'refs', id, 2)
		end
		redis.call('INCRBY', KEYS[1] .. 'count', 100000)`, "1", "micro:{orders}:")
	}
	quick := func(what string, do func() error) {
		t.Helper()
		begun := time.Now()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		took := time.Since(begun)
		if t.Logf("%s: %v", what, took.Round(time.Millisecond/10)); took > 5*time.Second { // on a busy machine
			t.Errorf("%s took %v", what, took)
		}
	}
	quick("list", func() error {
		all, err := b.Queues(within(t))
		if len(all) != 2 || all[1].Lag != n {
			t.Errorf("queues: %+v", all)
		}
		return err
	})
	m := join(t, b, broker.JoinOptions{Prefetch: 100})
	quick("publish", func() error { return b.Publish(within(t), "orders", broker.Message{Body: []byte("last")}) })
	quick("receive and acknowledge a hundred", func() error {
		for range 100 {
			if err := receive(t, m, 0).Ack(within(t)); err != nil {
				return err
			}
		}
		return nil
	})
	quick("browse", func() error {
		all, err := b.Browse(within(t), "orders", "q", "", 100)
		if len(all) != 100 {
			t.Errorf("%d messages", len(all))
		}
		return err
	})
}
