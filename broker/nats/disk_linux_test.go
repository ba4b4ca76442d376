package nats_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// A server whose disk is full: publishing, one by one and in bulk, says so,
// what is stored is given out, and when the server was started anew, with room,
// all goes on with the same broker.
func TestServerDiskFull(t *testing.T) {
	disk := testserver.Disk(t, 32<<20)
	s := testserver.NATS(t, func(o *server.Options) {
		o.StoreDir, o.JetStreamMaxStore = disk.Path, 1<<40
	})
	b := external(t, "", s)
	m, err := b.Join(bounded(t, 30*time.Second), "orders", "billing", broker.JoinOptions{Prefetch: 5})
	if err != nil {
		t.Fatal(err)
	}
	message := broker.Message{Body: make([]byte, 1000)}
	const stored = 20
	for range stored {
		if err := b.Publish(bounded(t, 30*time.Second), "orders", message); err != nil {
			t.Fatal(err)
		}
	}
	disk.Fill()
	var full error
	for n := 0; full == nil && n < 1000; n++ { // some more may find room
		full = b.Publish(bounded(t, 30*time.Second), "orders", message)
	}
	if !errors.Is(full, broker.ErrFull) {
		t.Errorf("Publish: %v, want ErrFull", full)
	}
	for _, err := range b.PublishAll(bounded(t, 30*time.Second), "orders", make([]string, 3), []broker.Message{message, message, message}) {
		if !errors.Is(err, broker.ErrFull) {
			t.Errorf("PublishAll: %v, want ErrFull", err)
		}
	}
	for range stored {
		held, err := m.Receive(bounded(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Ack(bounded(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	disk.Empty()
	s.Stop()
	s.Start()
	for ctx := bounded(t, 30*time.Second); ; {
		if err = b.Publish(ctx, "orders", message); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Errorf("Publish when there is room: %v", err)
	}
}
