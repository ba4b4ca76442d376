package nats_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

func TestMain(m *testing.M) {
	enginetest.Main(nil)
	goleak.VerifyTestMain(m)
}

func TestContract(t *testing.T) {
	e := openEngine(t, t.TempDir())
	brokertest.Run(t, func(t *testing.T) broker.Broker {
		return openBroker(t, e, nats.Options{})
	}, brokertest.Options{Ordered: true, Limit: 31 << 20, TooLarge: nats.MaxMessage + 1, Topics: noPattern})
}

func TestDurableContract(t *testing.T) {
	e := openEngine(t, t.TempDir())
	brokertest.RunDurable(t, func(t *testing.T) broker.Broker {
		return openBroker(t, e, nats.Options{})
	}, brokertest.Options{Ordered: true, Wait: 30 * time.Second})
}

// noPattern leaves out topics that are patterns to a subscriber.
func noPattern(topic string) bool {
	parts := strings.Split(topic, ".")
	return !slices.Contains(parts, "*") && parts[len(parts)-1] != ">"
}

func openEngine(t testing.TB, dir string) *engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func openBroker(t testing.TB, e *engine.Engine, o nats.Options) *nats.Broker {
	t.Helper()
	b, err := nats.New(bounded(t, 30*time.Second), e.MessagesConn(), o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
