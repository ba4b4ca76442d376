package gomicro_test

import (
	"context"
	"log/slog"
	"regexp"
	"testing"
	"time"

	micro "go-micro.dev/v5/broker"
	micronats "go-micro.dev/v5/broker/nats"
	microregistry "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/gomicro"
)

func adaptBroker(t *testing.T, b micro.Broker) *gomicro.BrokerAdapter {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := gomicro.NewBroker(ctx, b, gomicro.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), MaxBodySize: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMemoryBrokerSuite(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) broker.Broker { return adaptBroker(t, micro.NewMemoryBroker()) },
		brokertest.Options{Alone: true, Ordered: true, TooLarge: 4<<20 + 1})
}

// go-micro hands messages and subscriptions to its NATS client and does not
// wait for the server: only through one connection are they in order.
func TestNATSBrokerSuite(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	brokertest.Run(t, func(t *testing.T) broker.Broker {
		return adaptBroker(t, micronats.NewNatsBroker(micro.Addrs(url)))
	}, brokertest.Options{
		Alone: true, Ordered: true, TooLarge: 4<<20 + 1,
		Topics: func(topic string) bool { return natsTopic.MatchString(topic) },
		Lacks:  map[string]string{"QueueNamesNeverMix": "NATS refuses queues with blanks in their names, and go-micro gives them to it as they are"},
	})
}

// The faults of go-micro's http broker are in its own sending: the driver for
// --broker=http speaks to the same peers and has none of them.
func TestHTTPBrokerSuite(t *testing.T) {
	t.Parallel()
	const (
		missed  = "it remembers for five seconds that nobody was there"
		burst   = "it keeps 64 messages of a burst, in no order, and loses the others"
		oneNode = "all its subscriptions to a topic are one node, which every queue calls"
	)
	shared := microregistry.NewMemoryRegistry()
	brokertest.Run(t, func(t *testing.T) broker.Broker {
		return adaptBroker(t, micro.NewHttpBroker(micro.Registry(shared)))
	}, brokertest.Options{
		Alone: true, TooLarge: 4<<20 + 1,
		Lacks: map[string]string{
			"PublishToNobody": missed, "LiveOnReturn": missed, "Order": burst, "HandlerIsNotConcurrent": burst, "Concurrency": burst,
			"QueuesAndPlainTogether": oneNode, "QueueNamesNeverMix": oneNode,
		},
	})
}

// natsTopic is what NATS takes as a subject that is nothing but a name.
var natsTopic = regexp.MustCompile(`^[^$_ \t\r\n\x00*>.][^ \t\r\n\x00*>.]*(\.[^ \t\r\n\x00*>.]+)*$`)
