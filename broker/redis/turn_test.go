package redis_test

import (
	"errors"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/testserver"
)

// far opens a broker behind a relay.
func far(t *testing.T, server *testserver.RedisServer) (*redis.Broker, *testserver.Relay) {
	t.Helper()
	relay := testserver.NewRelay(t, server.Addr)
	b, err := redis.Open(&url.URL{Scheme: "redis", Host: relay.Addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // over a network that is as the test has left it
	return b, relay
}

// ordered is a queue whose messages nobody waits for the time of.
var ordered = broker.JoinOptions{Prefetch: 4, QueueOptions: broker.QueueOptions{MaxInFlight: 4, AckWait: time.Hour}}

func join(t *testing.T, b *redis.Broker, o broker.JoinOptions) broker.Member {
	t.Helper()
	m, err := b.Join(within(t), "orders", "q", o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// receive takes what comes, and expects the message with the number.
func receive(t *testing.T, m broker.Member, n int) *broker.Held {
	t.Helper()
	held, err := m.Receive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if string(held.Body) != strconv.Itoa(n) {
		t.Fatalf("received %q, want %d", held.Body, n)
	}
	return held
}

func publishNumbers(t *testing.T, b *redis.Broker, n int) {
	t.Helper()
	for i := range n {
		if err := b.Publish(within(t), "orders", broker.Message{Body: []byte(strconv.Itoa(i))}); err != nil {
			t.Fatal(err)
		}
	}
}

// A member that is gone without a word: the next one begins with what it had,
// long before AckWait, and it has nothing any more by then. What was given back
// with a delay stays where it is.
func TestSilentMember(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	near := open(t, server)
	defer near.Close()
	gone, relay := far(t, server)
	first := join(t, gone, ordered)
	publishNumbers(t, near, 6)
	held := []*broker.Held{receive(t, first, 0), receive(t, first, 1), receive(t, first, 2)}
	if err := held[0].Ack(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := held[1].Nack(within(t), time.Hour); err != nil {
		t.Fatal(err)
	}
	second := join(t, near, ordered)
	relay.Cut()
	next := receive(t, second, 2)
	if held[2].Fresh() {
		t.Error("two members have the message")
	}
	if err := held[2].Ack(within(t)); !errors.Is(err, broker.ErrLapsed) {
		t.Errorf("Ack of the one that is gone: %v, want ErrLapsed", err)
	}
	if next.Attempt != 2 {
		t.Errorf("attempt %d, want 2", next.Attempt)
	}
	for i, held := range []*broker.Held{next, receive(t, second, 3), receive(t, second, 4)} {
		if err := held.Ack(within(t)); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	receive(t, second, 5)
	relay.Heal()
	if _, err := first.Receive(within(t)); !errors.Is(err, broker.ErrLapsed) {
		t.Errorf("Receive of the one that is back: %v, want ErrLapsed", err)
	}
}

// An answer with messages that gets lost: the member that has the turn keeps
// it, and what it has; what it was given without its knowledge comes at once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	near := open(t, server)
	defer near.Close()
	b, relay := far(t, server)
	m := join(t, b, ordered)
	publishNumbers(t, near, 1)
	known := receive(t, m, 0)
	relay.CutToClient()
	taken := make(chan error, 1)
	go func() {
		_, err := m.Receive(within(t))
		taken <- err
	}()
	publishNumbers(t, near, 3)
	if err := <-taken; err == nil {
		t.Fatal("Receive without an answer: no error")
	}
	relay.Heal()
	relay.Reset()
	lapsed := false // on a machine that is busy; then all comes again
	for n := 3; n > 0; n-- {
		var held *broker.Held
		for ctx := within(t); held == nil; {
			var err error
			if held, err = m.Receive(ctx); err != nil && ctx.Err() != nil {
				t.Fatal(err)
			}
			if errors.Is(err, broker.ErrLapsed) {
				lapsed, n = true, 4
			}
		}
		if err := held.Ack(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := known.Ack(within(t)); err != nil && !lapsed {
		t.Errorf("Ack of what was there before: %v", err)
	}
}
