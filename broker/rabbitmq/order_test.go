package rabbitmq_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// A member of a queue that keeps the order leaves: the next one begins when
// what the first has is settled.
func TestDrainKeepsOrder(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	o := broker.JoinOptions{Prefetch: 2, QueueOptions: broker.QueueOptions{MaxInFlight: 2}}
	first, err := b.Join(within(t), "t", "q", o)
	if err != nil {
		t.Fatal(err)
	}
	next, err := b.Join(within(t), "t", "q", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := b.Publish(within(t), "t", broker.Message{Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	held, err := first.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if early, err := next.Receive(soon); err == nil {
		t.Errorf("the next member has %q, while another has the one before", early.Body)
	}
	if err := held.Ack(within(t)); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 3; i++ {
		held, err := next.Receive(within(t))
		if err != nil || string(held.Body) != fmt.Sprint(i) || held.Attempt != 1 {
			t.Fatalf("received %v, %v; want %d", held, err, i)
		}
		if err := held.Ack(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// What a member of an ordered queue has when it leaves comes to the next one in
// its place, also what waits for the end of a delay.
func TestCloseKeepsOrder(t *testing.T) {
	server := testserver.RabbitMQ(t)
	for _, kind := range []string{"classic", "quorum"} {
		b := openAt(t, server, "/", "queue_type="+kind)
		defer b.Close()
		o := broker.JoinOptions{Prefetch: 3, QueueOptions: broker.QueueOptions{MaxInFlight: 3}}
		first, err := b.Join(within(t), kind, "q", o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			if err := b.Publish(within(t), kind, broker.Message{Body: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		held, err := first.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Nack(within(t), time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := first.Receive(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := first.Close(within(t)); err != nil {
			t.Fatal(err)
		}
		next, err := b.Join(within(t), kind, "q", o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			held, err := next.Receive(within(t))
			if err != nil || string(held.Body) != fmt.Sprint(i) {
				t.Fatalf("%s: received %v, %v; want %d", kind, held, err, i)
			}
			if err := held.Ack(within(t)); err != nil {
				t.Error(err)
			}
		}
	}
}
