package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/broker/nats"
	"go-micro.dev/v5/broker/rabbitmq"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// message is one that came, to a subscriber of the broker or to a handler of
// the server.
type message struct {
	Topic  string
	Header map[string]string
	Body   []byte
	Value  string // what the handler was given
}

// inbox keeps all that came.
type inbox struct {
	mu  sync.Mutex
	all []message
}

func (b *inbox) put(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, m)
}

func (b *inbox) MarshalJSON() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return json.Marshal(b.all)
}

// handle has the server decode what comes on the topic, as services do.
func handle(srv server.Server, topic string, in *inbox) error {
	plain := func(_ context.Context, v *Hello) error {
		in.put(message{Topic: topic, Value: v.Name})
		return nil
	}
	proto := func(_ context.Context, v *wrapperspb.StringValue) error {
		in.put(message{Topic: topic + ".proto", Value: v.Value})
		return nil
	}
	if err := srv.Subscribe(srv.NewSubscriber(topic, plain)); err != nil {
		return err
	}
	return srv.Subscribe(srv.NewSubscriber(topic+".proto", proto))
}

// publish publishes a message as it stands.
func publish(b broker.Broker, topic, text string) error {
	var m broker.Message
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return err
	}
	return b.Publish(topic, &m)
}

// event has go-micro's client encode and publish.
func event(c client.Client, topic, contentType, name string) error {
	var v any = &Hello{Name: name}
	if strings.HasSuffix(contentType, "protobuf") {
		v = &wrapperspb.StringValue{Value: name}
	}
	if err := c.Init(client.ContentType(contentType)); err != nil {
		return err
	}
	return c.Publish(context.Background(), c.NewMessage(topic, v))
}

// messages does what is told about messages; it is false for other orders.
func messages(words []string, b broker.Broker, c client.Client, in *inbox) bool {
	switch {
	case words[0] == "subscribe" && len(words) == 3:
		say(fmt.Sprint(subscribe(b, words[1], words[2], in)))
	case words[0] == "publish" && len(words) > 2:
		say(fmt.Sprint(publish(b, words[1], strings.Join(words[2:], " "))))
	case words[0] == "event" && len(words) == 4:
		say(fmt.Sprint(event(c, words[1], words[2], words[3])))
	case words[0] == "received":
		say(in)
	default:
		return false
	}
	return true
}

// openBroker opens go-micro's own broker.
func openBroker(kind, address string, reg registry.Registry) broker.Broker {
	switch kind {
	case "http":
		return broker.NewHttpBroker(broker.Registry(reg), broker.Addrs("127.0.0.1:0"))
	case "nats":
		return nats.NewNatsBroker(broker.Addrs("nats://" + address))
	case "rabbitmq":
		return rabbitmq.NewBroker(broker.Addrs("amqp://guest:guest@" + address))
	}
	return broker.NewMemoryBroker()
}

func subscribe(b broker.Broker, topic, queue string, in *inbox) error {
	var options []broker.SubscribeOption
	if queue != "" {
		options = append(options, broker.Queue(queue))
	}
	_, err := b.Subscribe(topic, func(e broker.Event) error {
		m := e.Message()
		in.put(message{Topic: e.Topic(), Header: m.Header, Body: m.Body})
		return nil
	}, options...)
	return err
}
