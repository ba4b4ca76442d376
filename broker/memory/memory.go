// Package memory is a broker within one process, for tests. It owns no I/O:
// what one [Broker] is given, its own subscriptions get.
package memory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/mailbox"
)

// MaxBodySize is the largest message body in bytes.
const MaxBodySize = 4 << 20

// Broker is a [broker.Broker]. A handler that falls more than 65,536 messages
// or 256 MiB behind loses the newest ones.
type Broker struct {
	mu     sync.Mutex
	topics map[string][]*subscription // in the order of subscription
	turn   uint64                     // which member of a queue is next
	closed bool
}

// New returns an empty broker.
func New() *Broker { return &Broker{topics: map[string][]*subscription{}} }

type subscription struct {
	broker *Broker
	topic  string
	queue  string
	box    *mailbox.Box
}

// Publish hands the message to the subscriptions that are there.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	if err := check(ctx, topic); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if len(m.Body) > MaxBodySize {
		return fmt.Errorf("publish: %w: %d bytes, the limit is %d", broker.ErrTooLarge, len(m.Body), MaxBodySize)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return broker.ErrClosed
	}
	queues := map[string][]*subscription{}
	for _, s := range b.topics[topic] {
		if s.queue == "" {
			s.put(m)
		} else {
			queues[s.queue] = append(queues[s.queue], s)
		}
	}
	b.turn++
	for _, members := range queues {
		members[b.turn%uint64(len(members))].put(m)
	}
	return nil
}

// put gives the subscription a copy, which its handler owns.
func (s *subscription) put(m broker.Message) {
	s.box.Put(broker.Delivery{
		Topic:   s.topic,
		Message: broker.Message{Header: maps.Clone(m.Header), Body: bytes.Clone(m.Body)},
	})
}

// Subscribe adds a subscription.
func (b *Broker) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	if err := check(ctx, topic); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, broker.ErrClosed
	}
	s := &subscription{
		broker: b, topic: topic, queue: o.Queue,
		box: mailbox.New(h, mailbox.Limits{Messages: 1 << 16, Bytes: 256 << 20}),
	}
	b.topics[topic] = append(b.topics[topic], s)
	return s, nil
}

func check(ctx context.Context, topic string) error {
	if topic == "" {
		return errors.New("the topic is empty")
	}
	return ctx.Err()
}

// Close removes the subscription and returns when its handler has returned.
func (s *subscription) Close() error {
	s.broker.remove(s)
	s.box.Close()
	return nil
}

func (b *Broker) remove(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var rest []*subscription
	for _, other := range b.topics[s.topic] {
		if other != s {
			rest = append(rest, other)
		}
	}
	if rest == nil {
		delete(b.topics, s.topic)
		return
	}
	b.topics[s.topic] = rest
}

// Ping tells whether the broker is open.
func (b *Broker) Ping(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return broker.ErrClosed
	}
	return nil
}

// Close ends all subscriptions.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	topics := b.topics
	b.topics = map[string][]*subscription{}
	b.mu.Unlock()
	for _, subscriptions := range topics {
		for _, s := range subscriptions {
			s.box.Close()
		}
	}
	return nil
}
