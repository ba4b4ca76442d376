package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/testserver"
)

// A disk that runs full under a host and a process that has joined: what is
// stored is still given out and acknowledged, and when there is room again both
// accounts take more, in the same process.
func TestDiskFull(t *testing.T) {
	disk := testserver.Disk(t, 64<<20)
	host := open(t, engine.Options{DataDir: disk.Path, CanHost: true})
	joined := open(t, engine.Options{DataDir: disk.Path})
	if host.Full() == nil {
		t.Error("a disk that is smaller than the reserve is not full")
	}
	if err := host.Spent(); err != nil {
		t.Errorf("there is room for registrations: %v", err)
	}
	queue := queueOf(t, joined)
	kv := bucket(t, joined)
	const stored = 20
	for range stored {
		if err := publish(t, joined, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}

	disk.Fill()
	within(t, 30*time.Second, "Spent", func() bool { return host.Spent() != nil && joined.Spent() != nil })
	within(t, 30*time.Second, "a message that cannot be stored", func() bool { return publish(t, joined, 300*time.Millisecond) != nil })
	for range stored { // at least: some more may have found room
		take(t, queue)
	}

	disk.Empty()
	within(t, 30*time.Second, "the store takes messages", func() bool { return publish(t, joined, 300*time.Millisecond) == nil })
	within(t, 30*time.Second, "the store takes registrations", func() bool {
		_, err := kv.PutString(bounded(t, 300*time.Millisecond), "a", "b")
		return err == nil
	})
	within(t, 30*time.Second, "Spent is over", func() bool { return host.Spent() == nil && joined.Spent() == nil })
	take(t, queueOf(t, joined))
	if !host.Hosting() || joined.Hosting() {
		t.Error("the host has changed")
	}
}

// A host that is closed while its disk is full lets go of the lock.
func TestCloseWithDiskFull(t *testing.T) {
	disk := testserver.Disk(t, 64<<20)
	host, err := engine.Open(t.Context(), engine.Options{DataDir: disk.Path, CanHost: true})
	if err != nil {
		t.Fatal(err)
	}
	queueOf(t, host)
	if err := publish(t, host, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	disk.Fill()
	within(t, 30*time.Second, "a message that cannot be stored", func() bool { return publish(t, host, 300*time.Millisecond) != nil })
	if err := host.Close(bounded(t, 30*time.Second)); err != nil {
		t.Error(err)
	}
	disk.Empty()
	take(t, queueOf(t, open(t, engine.Options{DataDir: disk.Path, CanHost: true})))
}

// queueOf opens the durable queue of the tests.
func queueOf(t *testing.T, e *engine.Engine) jetstream.Consumer {
	t.Helper()
	js := stream(t, e)
	s, err := js.CreateOrUpdateStream(bounded(t, 30*time.Second), streamConfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.CreateOrUpdateConsumer(bounded(t, 30*time.Second), jetstream.ConsumerConfig{Durable: "q", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func stream(t *testing.T, e *engine.Engine) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func publish(t *testing.T, e *engine.Engine, limit time.Duration) error {
	t.Helper()
	_, err := stream(t, e).Publish(bounded(t, limit), "queue.x", make([]byte, 1000))
	return err
}

// take receives a message and acknowledges it.
func take(t *testing.T, c jetstream.Consumer) {
	t.Helper()
	within(t, 30*time.Second, "a stored message comes and is acknowledged", func() bool {
		m, err := c.Next(jetstream.FetchMaxWait(time.Second))
		if err != nil {
			if !errors.Is(err, nats.ErrTimeout) && !errors.Is(err, nats.ErrNoResponders) {
				t.Log(err)
			}
			return false
		}
		return m.DoubleAck(bounded(t, 5*time.Second)) == nil
	})
}
