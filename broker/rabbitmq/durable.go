package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
)

// Declare implements [broker.Durable]. RabbitMQ cannot change a queue that is
// there: whether MaxInFlight is bounded, and Expires, stay what they were, and
// asking for something else is an error. A new AckWait is for members that
// join afterwards.
func (b *Broker) Declare(ctx context.Context, topic, queue string, o broker.QueueOptions) error {
	if o == (broker.QueueOptions{}) && b.redeclare(ctx, topic, queue) {
		return nil // publishing with a delay comes here each time
	}
	_, err := b.declare(ctx, topic, queue, o)
	return err
}

// declare returns the queue with the options that it has.
func (b *Broker) declare(ctx context.Context, topic, queue string, o broker.QueueOptions) (q durableQueue, err error) {
	switch {
	case topic == "":
		return q, errors.New("declare queue: the topic is empty")
	case queue == "":
		return q, errors.New("declare queue: its name is empty")
	case b.open.Closed():
		return q, broker.ErrClosed
	}
	q = durableQueue{topic: topic, label: queue, name: queueName(durableKind, topic, queue), kind: b.address.kind}
	if err := b.agree(ctx, &q, o); err != nil {
		return q, fmt.Errorf("declare queue %s: %w", queue, err)
	}
	b.remember(q)
	return q, nil
}

// remember keeps the options of a queue for [Broker.redeclare].
func (b *Broker) remember(q durableQueue) {
	const enough = 1000
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.known) >= enough {
		clear(b.known)
	}
	b.known[q.name] = q
}

// redeclare makes a queue that was declared before, so that it is there
// whatever has happened; false means that this is not enough.
func (b *Broker) redeclare(ctx context.Context, topic, queue string) bool {
	b.mu.Lock()
	q, ok := b.known[queueName(durableKind, topic, queue)]
	b.mu.Unlock()
	if !ok || b.open.Closed() {
		return false
	}
	return b.make(ctx, &q) == nil
}

const durableKind = "micro" // what the names of durable queues begin with

// durableQueue is a queue as RabbitMQ keeps it.
type durableQueue struct {
	topic   string
	label   string // as people call it; not always known
	name    string
	kind    string // what it was found to be, or will be
	options broker.QueueOptions
}

// bounded tells that one member at a time gets messages.
func (q durableQueue) bounded() bool { return q.options.MaxInFlight > 0 }

// make declares and binds it; it may be there.
func (b *Broker) make(ctx context.Context, d *durableQueue) (err error) {
	const week = 7 * 24 * time.Hour
	args := amqp.Table{
		// A message may be held for long; servers before 3.12 do not know this.
		amqp.ConsumerTimeoutArg: week.Milliseconds(),
	}
	if d.bounded() {
		args[amqp.SingleActiveConsumerArg] = true
	}
	if d.options.Expires > 0 {
		args[amqp.QueueTTLArg] = d.options.Expires.Milliseconds()
	}
	d.kind, err = b.declareQueue(ctx, d.name, d.kind, bindingKey(d.topic), args)
	return err
}

// merge returns the options that a queue has after it was declared with o:
// what is left open stays, negative is taken back.
func merge(old, o broker.QueueOptions) broker.QueueOptions {
	return broker.QueueOptions{
		AckWait:     ceil(max(cmp.Or(o.AckWait, old.AckWait, broker.DefaultAckWait), time.Millisecond)),
		MaxInFlight: max(cmp.Or(o.MaxInFlight, old.MaxInFlight), 0),
		Expires:     ceil(max(cmp.Or(o.Expires, old.Expires), 0)),
	}
}

// ceil rounds up to what RabbitMQ counts.
func ceil(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}
