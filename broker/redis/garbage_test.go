package redis_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// What others have made of our keys: who needs them gets an error that names
// the trouble, and the other topics go on.
func TestSpoiledKeys(t *testing.T) {
	server := testserver.Redis(t)
	for _, key := range []string{"log", "queues", "q:q", "due:q", "held:q", "members:q", "skip:q", "refs", "count", "shared", "shared:live"} {
		t.Run(strings.ReplaceAll(key, ":", "-"), func(t *testing.T) {
			b := open(t, server)
			defer b.Close()
			topic := "spoiled " + key
			well := join(t, b, broker.JoinOptions{})
			m, err := b.Join(within(t), topic, "q", broker.JoinOptions{QueueOptions: broker.QueueOptions{MaxInFlight: 10}})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Publish(within(t), topic, broker.Message{}); err != nil {
				t.Fatal(err)
			}
			held, err := m.Receive(within(t))
			if err != nil {
				t.Fatal(err)
			}
			full := "micro:{" + topic + "}:" + key
			kind := "list"
			if key == "shared:live" || key == "shared" {
				kind = "string"
			}
			server.Do(t, "DEL", full)
			if kind == "list" {
				server.Do(t, "RPUSH", full, "nonsense")
			} else {
				server.Do(t, "SET", full, "nonsense")
			}
			var errs []error
			_, queue := b.Queue(within(t), topic, "q")
			_, browse := b.Browse(within(t), topic, "q", "", 10)
			_, purge := b.Purge(within(t), topic, "q")
			errs = append(errs, queue, browse, purge, held.Ack(within(t)), b.Publish(within(t), topic, broker.Message{}),
				b.Declare(within(t), topic, "q", broker.QueueOptions{}), m.Close(within(t)))
			for _, err := range errs {
				if err != nil && !strings.Contains(err.Error(), "WRONGTYPE") &&
					!errors.Is(err, broker.ErrNoQueue) && !errors.Is(err, broker.ErrLapsed) {
					t.Errorf("an error that does not tell what is wrong: %v", err)
				}
			}
			if err := b.Publish(within(t), "orders", broker.Message{Body: []byte("1")}); err != nil {
				t.Fatal(err)
			}
			if err := receive(t, well, 1).Ack(within(t)); err != nil {
				t.Error(err)
			}
			if all, err := b.Queues(within(t)); err != nil || !slices.ContainsFunc(all, func(q broker.QueueInfo) bool { return q.Topic == "orders" }) {
				t.Errorf("Queues: %v, %v", all, err)
			}
			server.Do(t, "DEL", full)
		})
	}
}

// Entries that no sidecar has written, of odd ids and sizes.
func TestForeignEntries(t *testing.T) {
	server := testserver.Redis(t)
	b := open(t, server)
	defer b.Close()
	for _, o := range []broker.QueueOptions{{}, {MaxInFlight: 10}} {
		m := join(t, b, broker.JoinOptions{Prefetch: 10, QueueOptions: o})
		const log = "micro:{orders}:log"
		server.Do(t, "XADD", log, "*", "other", "thing", "m", "second")
		server.Do(t, "XADD", log, "*", "m", "")
		server.Do(t, "XADD", log, "*", "m", string(bytes.Repeat([]byte("x"), 64<<20)))
		publishNumbers(t, b, 1)
		for _, want := range []string{"thing", "", "0"} {
			held, err := m.Receive(within(t))
			if err != nil || string(held.Body) != want {
				t.Fatalf("received not %q; %v", want, err)
			}
			if err := held.Ack(within(t)); err != nil {
				t.Error(err)
			}
		}
		info, err := b.Queue(within(t), "orders", "q")
		if err != nil || info.Held != 0 {
			t.Errorf("%+v, %v", info, err)
		}
		if err := m.Close(within(t)); err != nil {
			t.Error(err)
		}
		if err := b.Delete(within(t), "orders", "q"); err != nil {
			t.Error(err)
		}
	}
}
