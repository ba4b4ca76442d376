package rabbitmq_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/testserver"
)

// open returns a broker on the server.
func open(t *testing.T, server *testserver.RabbitMQServer) *rabbitmq.Broker {
	t.Helper()
	b, err := rabbitmq.Open(&url.URL{Scheme: "amqp", Host: server.Addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// noPattern leaves out the topics that are patterns for a subscriber.
func noPattern(topic string) bool {
	parts := strings.Split(topic, ".")
	for i, part := range parts {
		if part == "*" || part == ">" && i == len(parts)-1 {
			return false
		}
	}
	return true
}

func TestBroker(t *testing.T) {
	server := testserver.RabbitMQ(t)
	brokertest.Run(t, func(t *testing.T) broker.Broker { return open(t, server) }, brokertest.Options{
		Ordered: true, TooLarge: rabbitmq.MaxMessage + 1, Topics: noPattern,
	})
}

func TestDurable(t *testing.T) {
	server := testserver.RabbitMQ(t)
	brokertest.RunDurable(t, func(t *testing.T) broker.Broker { return open(t, server) }, brokertest.Options{Ordered: true, Blind: true})
}
