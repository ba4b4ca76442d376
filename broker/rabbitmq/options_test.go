package rabbitmq_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// The options of a queue are its own: who leaves them open gets them.
func TestOptionsStay(t *testing.T) {
	server := testserver.RabbitMQ(t)
	a, b := open(t, server), open(t, server)
	defer a.Close()
	defer b.Close()
	o := broker.QueueOptions{AckWait: 7 * time.Second, MaxInFlight: 1, Expires: time.Hour}
	var all sync.WaitGroup // at once, and they agree
	for range 4 {
		all.Go(func() {
			if err := errors.Join(a.Declare(within(t), "t", "q", o), b.Declare(within(t), "t", "q", broker.QueueOptions{AckWait: o.AckWait, MaxInFlight: 1, Expires: o.Expires})); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m, err := b.Join(within(t), "t", "q", broker.JoinOptions{Prefetch: 5})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.Publish(within(t), "t", broker.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	held, err := m.Receive(within(t))
	if err != nil || held.AckWait() != o.AckWait {
		t.Fatalf("received %v, %v", held, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.Receive(soon); err == nil {
		t.Error("a second message is in flight")
	}
	for _, other := range []broker.QueueOptions{{MaxInFlight: -1}, {Expires: -1}, {Expires: time.Minute}} {
		if err := a.Declare(within(t), "t", "q", other); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Declare with %+v: %v, want ErrUnsupported", other, err)
		}
	}
	if err := a.Declare(within(t), "t", "q", broker.QueueOptions{AckWait: 9 * time.Second, MaxInFlight: 2}); err != nil {
		t.Error(err)
	}
	late, err := a.Join(within(t), "t", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(within(t)); err != nil {
		t.Error(err)
	}
	if held, err = late.Receive(within(t)); err != nil || held.AckWait() != 9*time.Second || held.Attempt != 1 {
		t.Fatalf("received %v, %v", held, err)
	}
	if err := held.Ack(within(t)); err != nil {
		t.Error(err)
	}
}

// A queue without a member goes when its time is over, and one of that name
// is a new one.
func TestExpires(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	if err := b.Declare(within(t), "t", "q", broker.QueueOptions{Expires: time.Second, MaxInFlight: 1}); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); strings.Contains(server.Control(t, "list_queues", "name"), "micro:t:q"); {
		if ctx.Err() != nil {
			t.Fatal("the queue stays")
		}
	}
	if err := b.Declare(within(t), "t", "q", broker.QueueOptions{}); err != nil {
		t.Error(err)
	}
}
