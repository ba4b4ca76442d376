// Package broker is the port to publish/subscribe: what a message, a
// subscription and a broker are. The drivers in the folders below talk to the
// engines. It imports nothing but the standard library.
package broker

import (
	"context"
	"errors"
)

var (
	// ErrTooLarge is returned by Publish for a message over the engine's limit.
	ErrTooLarge = errors.New("message too large")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("broker closed")
)

// Message is what travels. Header keys keep their spelling; Body is any bytes.
type Message struct {
	Header map[string]string
	Body   []byte
}

// Delivery is a message that arrived at a subscription. The receiver owns it.
type Delivery struct {
	Message
	// Topic is what the message was published to.
	Topic string
}

// Handler receives the deliveries of one subscription, one at a time and in
// the order the engine gave them. It must not block for long: a driver may
// buffer a bounded number of messages behind it and then drop the oldest or
// cut the subscription.
type Handler func(Delivery)

// SubscribeOptions refine a subscription. The zero value receives every
// message.
type SubscribeOptions struct {
	// Queue, when set, makes all subscriptions of the topic with the same
	// queue name share its messages: each goes to one of them.
	Queue string
}

// Subscription is a live subscription.
type Subscription interface {
	// Close ends it. The handler is not called after Close has returned.
	// Closing twice is no error.
	Close() error
}

// Broker is a messaging engine. All methods are safe for concurrent use and
// honour the context's end promptly. A topic is any non-empty string: a driver
// escapes what its engine cannot hold.
type Broker interface {
	// Publish returns nil only when the engine has taken the message.
	// Publishing to a topic nobody listens to is no error.
	Publish(ctx context.Context, topic string, m Message) error
	// Subscribe is live when it returns: every message published afterwards,
	// by anyone, arrives. The subscription outlives ctx, which bounds the
	// call alone, and survives an engine that goes away and comes back.
	Subscribe(ctx context.Context, topic string, o SubscribeOptions, h Handler) (Subscription, error)
	// Close ends all subscriptions and frees what the broker holds.
	Close() error
}

// Pinger is implemented by brokers that can tell whether their engine can be
// reached now. The error is a sentence for people.
type Pinger interface {
	Ping(ctx context.Context) error
}
