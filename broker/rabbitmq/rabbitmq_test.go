package rabbitmq_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/testserver"
)

// open returns a broker on the server.
func open(t *testing.T, server *testserver.RabbitMQServer) *rabbitmq.Broker {
	t.Helper()
	return openAt(t, server, "", "")
}

// openAt is open with a path and parameters.
func openAt(t *testing.T, server *testserver.RabbitMQServer, path, query string) *rabbitmq.Broker {
	t.Helper()
	b, err := rabbitmq.Open(&url.URL{Scheme: "amqp", Host: server.Addr, Path: path, RawQuery: query}, nil)
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
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			server := testserver.RabbitMQ(t)
			brokertest.RunDurable(t, func(t *testing.T) broker.Broker { return openAt(t, server, "/", "queue_type="+kind) },
				brokertest.Options{Ordered: true, Blind: true})
		})
	}
}

// A queue is what it was declared as, whatever who comes later would have made
// it, and works all the same, with its options.
func TestQueueTypeStays(t *testing.T) {
	server := testserver.RabbitMQ(t)
	classic, quorum := open(t, server), openAt(t, server, "/", "queue_type=quorum")
	defer classic.Close()
	defer quorum.Close()
	options := broker.QueueOptions{AckWait: 7 * time.Second, MaxInFlight: 2}
	for queue, first := range map[string]*rabbitmq.Broker{"classic": classic, "quorum": quorum} {
		if err := first.Declare(within(t), "t", queue, options); err != nil {
			t.Fatal(err)
		}
		for _, b := range []*rabbitmq.Broker{classic, quorum} {
			if err := b.Declare(within(t), "t", queue, broker.QueueOptions{}); err != nil {
				t.Errorf("declare the %s queue: %v", queue, err)
			}
			m, err := b.Join(within(t), "t", queue, broker.JoinOptions{QueueOptions: options})
			if err != nil {
				t.Fatalf("join the %s queue: %v", queue, err)
			}
			if err := b.Publish(within(t), "t", broker.Message{Body: []byte(queue)}); err != nil {
				t.Fatal(err)
			}
			held, err := m.Receive(within(t))
			if err != nil || held.AckWait() != options.AckWait {
				t.Fatalf("received %v, %v", held, err)
			}
			if err := held.Ack(within(t)); err != nil {
				t.Error(err)
			}
			if err := m.Close(within(t)); err != nil {
				t.Error(err)
			}
		}
		if err := first.Declare(within(t), "t", queue, broker.QueueOptions{Expires: time.Hour}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("another Expires: %v, want ErrUnsupported", err)
		}
	}
	types := server.Control(t, "list_queues", "name", "type")
	for _, queue := range []string{"classic", "quorum"} {
		if !strings.Contains(types, "micro:t:"+queue+"\t"+queue+"\n") {
			t.Errorf("queue types:\n%s", types)
		}
	}
}
