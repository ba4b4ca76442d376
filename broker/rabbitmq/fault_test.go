package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/testserver"
)

const patience = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A server that is killed while messages are published, and comes back: what
// it has confirmed is there, members and live subscribers go on by themselves.
func TestRestart(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "orders", "billing", broker.JoinOptions{Prefetch: 100})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 100_000)
	if _, err := b.Subscribe(within(t), "orders", broker.SubscribeOptions{Queue: "live"}, func(d broker.Delivery) { heard <- string(d.Body) }); err != nil {
		t.Fatal(err)
	}
	confirmed, enough := publishUntilBroken(t, b)
	<-enough
	old, err := m.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	stored := <-confirmed
	if err := b.Ping(within(t)); err == nil {
		t.Error("Ping of a dead server: no error")
	}
	if err := old.Ack(within(t)); !errors.Is(err, broker.ErrLapsed) {
		t.Errorf("Ack over a connection that is gone: %v, want ErrLapsed", err)
	}
	server.Restart()
	for ctx := within(t); len(stored) > 0; {
		held, err := m.Receive(ctx)
		if err != nil {
			t.Fatalf("%d messages are lost: %v", len(stored), err)
		}
		if err := held.Ack(ctx); err == nil {
			delete(stored, string(held.Body))
		}
	}
	// The live subscriber is back in its queue sooner or later.
	for ctx := within(t); ; {
		if err := b.Publish(ctx, "orders", broker.Message{Body: []byte("after")}); err != nil {
			t.Fatal(err)
		}
		for waiting := true; waiting; {
			select {
			case body := <-heard:
				if body == "after" {
					return
				}
			case <-time.After(20 * time.Millisecond):
				waiting = false
			case <-ctx.Done():
				t.Fatal("the live subscriber does not come back")
			}
		}
	}
}

// publishUntilBroken publishes from several goroutines and tells what was
// confirmed when publishing has failed everywhere; enough is closed when some
// were.
func publishUntilBroken(t *testing.T, b *rabbitmq.Broker) (confirmed <-chan map[string]bool, enough <-chan struct{}) {
	t.Helper()
	var mu sync.Mutex
	stored, some, all := map[string]bool{}, make(chan struct{}), make(chan map[string]bool, 1)
	var publishers sync.WaitGroup
	ctx := within(t)
	for p := range 4 {
		publishers.Go(func() {
			for i := 0; ; i++ {
				body := fmt.Sprint(p, " ", i)
				if err := b.Publish(ctx, "orders", broker.Message{Body: []byte(body)}); err != nil {
					return
				}
				mu.Lock()
				stored[body] = true
				if len(stored) == 200 {
					close(some)
				}
				mu.Unlock()
			}
		})
	}
	go func() {
		publishers.Wait()
		all <- stored
	}()
	return all, some
}

// When the server has no room for more, publishing fails and nothing that was
// stored goes; members empty it all the same.
func TestFull(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "orders", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	publish := func() error { return b.Publish(within(t), "orders", broker.Message{Body: []byte("x")}) }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	server.Control(t, "set_disk_free_limit", "mem_relative", "1000000")
	stored := 1
	for ctx := within(t); ; {
		if err = publish(); err != nil || ctx.Err() != nil {
			break
		}
		stored++
	}
	if !errors.Is(err, broker.ErrFull) {
		t.Fatalf("after %d messages: %v, want ErrFull", stored, err)
	}
	for range stored {
		held, err := m.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Ack(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	server.Control(t, "set_disk_free_limit", "1000")
	for ctx := within(t); ; {
		if err = publish(); err == nil {
			return
		}
		if !errors.Is(err, broker.ErrFull) || ctx.Err() != nil {
			t.Fatalf("there is room again: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A call ends with its context although the server does not answer, and so
// does Close.
func TestPaused(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	if err := b.Publish(within(t), "t", broker.Message{}); err != nil {
		t.Fatal(err)
	}
	m, err := b.Join(within(t), "t", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server.Pause()
	defer server.Continue()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for name, call := range map[string]func() error{
		"Publish": func() error { return b.Publish(ctx, "t", broker.Message{}) },
		"Subscribe": func() error {
			_, err := b.Subscribe(ctx, "t", broker.SubscribeOptions{}, func(broker.Delivery) {})
			return err
		},
		"Declare": func() error { return b.Declare(ctx, "t", "q", broker.QueueOptions{}) },
		"Ping":    func() error { return b.Ping(ctx) },
		"Receive": func() error { _, err := m.Receive(ctx); return err },
	} {
		wg.Go(func() {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", name, err)
			}
		})
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	wg.Wait()
	start := time.Now()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > patience/2 {
		t.Errorf("Close took %v", d)
	}
}

// Whatever others publish or put into our queue is a message, and does no harm.
func TestForeign(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "t", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial("amqp://guest:guest@" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	odd := amqp.Table{
		"n": int64(7), "b": []byte{0xff}, "nil": nil, "list": []any{"a", int32(1)}, "table": amqp.Table{"k": "v"},
		"time": time.Unix(1, 0), "micro:attempt": "x", "micro:topic": int32(3), "CC": []any{"other"},
	}
	for _, at := range [][2]string{{"micro.durable", "t"}, {"micro", "t"}, {"", "micro:t:q"}} {
		if err := ch.PublishWithContext(t.Context(), at[0], at[1], false, false, amqp.Publishing{Headers: odd, Body: []byte("thing")}); err != nil {
			t.Fatal(err)
		}
		held, err := m.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if string(held.Body) != "thing" || held.Attempt != 1 || held.Header["n"] != "7" || held.Header["b"] != "\xff" {
			t.Errorf("received %q %q, attempt %d", held.Header, held.Body, held.Attempt)
		}
		if err := held.Nack(within(t), 0); err != nil {
			t.Error(err)
		}
		if held, err = m.Receive(within(t)); err != nil || held.Attempt != 2 {
			t.Fatalf("received %v, %v", held, err)
		}
		if err := held.Ack(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// Somebody deletes the queue: it comes back, and so do messages.
func TestDeletedQueue(t *testing.T) {
	server := testserver.RabbitMQ(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "t", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server.Control(t, "delete_queue", "micro:t:q")
	for ctx := within(t); ; {
		if err := b.Publish(ctx, "t", broker.Message{Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		held, err := m.Receive(soon)
		cancel()
		if err == nil {
			if err := held.Ack(ctx); err != nil {
				t.Error(err)
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the queue does not come back")
		}
	}
}
