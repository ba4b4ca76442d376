package nats_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/testserver"
)

// cutOff returns two brokers on one server: the network before the first can
// fail.
func cutOff(t *testing.T) (far, near *nats.External, network *testserver.Relay) {
	t.Helper()
	s := testserver.NATS(t)
	network = testserver.NewRelay(t, s.Addr)
	far = external(t, "", &testserver.NATSServer{Addr: network.Addr})
	t.Cleanup(network.Forget) // so that it can take its leave
	return far, external(t, "", s), network
}

// slowQueue is an ordered one whose AckWait is never waited for.
var slowQueue = broker.JoinOptions{Prefetch: 8, QueueOptions: broker.QueueOptions{MaxInFlight: 8, AckWait: 10 * time.Minute}}

func joinOrdered(t *testing.T, b *nats.External) broker.Member {
	t.Helper()
	m, err := b.Join(bounded(t, time.Minute), "orders", "audit", slowQueue)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func receive(t *testing.T, m broker.Member, want string) *broker.Held {
	t.Helper()
	h, err := m.Receive(bounded(t, time.Minute))
	if err != nil {
		t.Fatalf("waiting for %s: %v", want, err)
	}
	if string(h.Body) != want {
		t.Fatalf("received %s, want %s", h.Body, want)
	}
	return h
}

// What a member holds that is gone comes to the next as soon as the turn of the
// one has ended, long before AckWait, and before all else; and the one may do
// nothing with it any more.
func TestMemberGone(t *testing.T) {
	t.Parallel()
	far, near, network := cutOff(t)
	first := joinOrdered(t, far)
	const n = 20 // more than a member may have
	for i := range n {
		publish(t, near, "orders", fmt.Sprint(i))
	}
	if err := receive(t, first, "0").Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	held := receive(t, first, "1")
	receive(t, first, "2")
	second := joinOrdered(t, near)
	network.Cut()
	gone := time.Now()
	next := receive(t, second, "1")
	if took := time.Since(gone); took > slowQueue.AckWait/10 {
		t.Errorf("the next member waited for %v", took)
	}
	for i := 2; ; i++ {
		if err := next.Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == n {
			break
		}
		next = receive(t, second, fmt.Sprint(i))
	}
	if held.Fresh() || !errors.Is(held.Extend(bounded(t, time.Minute)), broker.ErrLapsed) {
		t.Error("the member before still has a message")
	}
}

// A request of the member that is gone waits at the server, which gives it the
// first message. The next member has nothing yet, and must not begin with the
// second.
func TestRequestOfMemberGone(t *testing.T) {
	t.Parallel()
	far, near, network := cutOff(t)
	first := joinOrdered(t, far)
	within(t, time.Minute, "the turn", func() bool { return nats.HasTurn(first) })
	publish(t, near, "orders", "before")
	if err := receive(t, first, "before").Ack(t.Context()); err != nil { // its request is there
		t.Fatal(err)
	}
	second := joinOrdered(t, near)
	network.Cut()
	within(t, time.Minute, "the next turn", func() bool { return nats.HasTurn(second) })
	for i := range 10 {
		publish(t, near, "orders", fmt.Sprint(i))
	}
	for i := range 10 {
		if err := receive(t, second, fmt.Sprint(i)).Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
