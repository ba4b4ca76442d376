package httpbroker

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait bounds what must happen in these tests.
const wait = 30 * time.Second

// open returns a broker over the registry, closed when the test ends.
func open(t *testing.T, r registry.Registry) *Broker {
	t.Helper()
	b, err := New(Options{Registry: r, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// subscribe returns the channel that the subscription's deliveries arrive at.
func subscribe(t *testing.T, b *Broker, topic, queue string) (<-chan broker.Delivery, broker.Subscription) {
	t.Helper()
	got := make(chan broker.Delivery, 100)
	s, err := b.Subscribe(t.Context(), topic, broker.SubscribeOptions{Queue: queue}, func(d broker.Delivery) { got <- d })
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	return got, s
}

func publish(t *testing.T, b *Broker, topic, body string) {
	t.Helper()
	m := broker.Message{Header: map[string]string{"k": "v", "Content-Type": "text/plain"}, Body: []byte(body)}
	if err := b.Publish(t.Context(), topic, m); err != nil {
		t.Fatalf("Publish: %v", err)
	}
}

func receive(t *testing.T, from <-chan broker.Delivery) broker.Delivery {
	t.Helper()
	select {
	case d := <-from:
		return d
	case <-time.After(wait):
		t.Fatal("nothing arrived")
		panic("unreachable")
	}
}

func TestBroker(t *testing.T) {
	shared := memory.New()
	open := func(t *testing.T) broker.Broker { return open(t, shared) }
	brokertest.Run(t, open, brokertest.Options{
		Ordered:  true,
		Limit:    DefaultMaxMessageSize,
		TooLarge: DefaultMaxMessageSize + 1,
	})
	names, err := shared.List(context.Background())
	if err != nil || len(names) > 0 {
		t.Errorf("left in the registry after all were closed: %q, %v", names, err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no registry":    {},
		"listen address": {Registry: memory.New(), Listen: "localhost"},
		"size":           {Registry: memory.New(), MaxMessageSize: -1},
	} {
		if b, err := New(o); err == nil {
			_ = b.Close()
			t.Errorf("%s: no error", name)
		}
	}
}
