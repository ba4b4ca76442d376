package rabbitmq_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	microbroker "go-micro.dev/v5/broker"
	microrabbit "go-micro.dev/v5/broker/rabbitmq"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
)

// goMicro connects go-micro's own broker.
func goMicro(t *testing.T, server *testserver.RabbitMQServer) microbroker.Broker {
	t.Helper()
	m := microrabbit.NewBroker(microbroker.Addrs("amqp://guest:guest@" + server.Addr))
	if err := m.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Disconnect() })
	return m
}

// What either publishes the other receives, live and durable, with its header.
func TestGoMicro(t *testing.T) {
	server := testserver.RabbitMQ(t)
	micro := goMicro(t, server)
	b := open(t, server)
	defer b.Close()
	header := map[string]string{"Content-Type": "application/json", "lower": "ü \"x\"", "Empty": ""}

	theirs := make(chan *microbroker.Message, 1000)
	sub, err := micro.Subscribe("orders.*", func(e microbroker.Event) error {
		theirs <- e.Message()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	// Its Subscribe does not wait for the server.
	for ctx, arrived := within(t), false; !arrived; {
		if err := b.Publish(ctx, "orders.new", broker.Message{Header: header, Body: []byte("ours")}); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-theirs:
			arrived = true
			if m.Header["Micro-Topic"] != "orders.new" {
				t.Errorf("go-micro got the topic %q", m.Header["Micro-Topic"])
			}
			delete(m.Header, "Micro-Topic")
			if !maps.Equal(m.Header, header) || string(m.Body) != "ours" {
				t.Errorf("go-micro got %q %q", m.Header, m.Body)
			}
		case <-time.After(20 * time.Millisecond):
		}
	}

	member, err := b.Join(within(t), "bills.>", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ours := make(chan broker.Delivery, 100)
	if _, err := b.Subscribe(within(t), "bills.paid", broker.SubscribeOptions{}, func(d broker.Delivery) { ours <- d }); err != nil {
		t.Fatal(err)
	}
	const n = 5
	for i := range n {
		if err := micro.Publish("bills.paid", &microbroker.Message{Header: header, Body: fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n { // once each, although the exchanges are bound to each other in a ring
		var live broker.Delivery
		select {
		case live = <-ours:
		case <-within(t).Done():
			t.Fatal("a message of go-micro's did not arrive")
		}
		held, err := member.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range []broker.Delivery{live, held.Delivery} {
			if d.Topic != "bills.paid" || string(d.Body) != fmt.Sprint(i) || !maps.Equal(d.Header, header) {
				t.Errorf("message %d arrived as %q %q %q", i, d.Topic, d.Header, d.Body)
			}
		}
		if held.ID == "" {
			t.Error("a message of go-micro's has no ID")
		}
		if err := held.Ack(within(t)); err != nil {
			t.Error(err)
		}
	}
}
