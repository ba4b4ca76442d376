package rabbitmq

import (
	"context"
	"errors"
	"maps"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker/internal/bound"
)

// In a cluster durable queues are quorum queues: three nodes keep them, and
// they go on when one is lost. A classic queue lives on one node, and there it
// is the safer one: a quorum queue that is younger than some seconds may be
// lost with what it has when its only node is killed (seen with 3.10: it
// forgets that it has the queue). A queue stays what it was declared as,
// because RabbitMQ cannot change it.

// defaultKind is for addresses that do not say it.
func defaultKind(hosts int) string {
	if hosts > 1 {
		return amqp.QueueTypeQuorum
	}
	return amqp.QueueTypeClassic
}

// otherKind is what a queue is when it is not of the kind.
func otherKind(kind string) string {
	if kind == amqp.QueueTypeClassic {
		return amqp.QueueTypeQuorum
	}
	return amqp.QueueTypeClassic
}

// declareQueue makes sure that a durable queue is there, of the kind or, if it
// was there before, of the other, and returns which. With a key it is bound to
// that.
func (b *Broker) declareQueue(ctx context.Context, name, kind, key string, args amqp.Table) (string, error) {
	first := b.declareKind(ctx, name, kind, key, args)
	if e, ok := errors.AsType[*amqp.Error](first); !ok || e.Code != amqp.PreconditionFailed {
		return kind, first
	}
	kind = otherKind(kind)
	if err := b.declareKind(ctx, name, kind, key, args); err != nil {
		return "", first // it has other options than ours, whatever its kind
	}
	return kind, nil
}

// declareKind uses a channel of its own, which a refusal costs.
func (b *Broker) declareKind(ctx context.Context, name, kind, key string, args amqp.Table) error {
	conn, ch, err := b.consuming.channel(ctx)
	if err != nil {
		return err
	}
	defer func() { go func() { _ = ch.Close() }() }() // its answer is of no interest
	args = maps.Clone(args)
	args[amqp.QueueTypeArg] = kind
	if kind == amqp.QueueTypeQuorum && limitsDeliveries(conn) {
		args["x-delivery-limit"] = -1
	}
	_, err = bound.Call(ctx, func() (any, error) {
		if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil || key == "" {
			return nil, err
		}
		return nil, ch.QueueBind(name, key, b.address.durable(), false, nil)
	})
	return err
}

// limitsDeliveries tells servers that drop a message which came back often,
// unless the queue says otherwise: RabbitMQ 4 and later. The ones before do
// not know how to be told.
func limitsDeliveries(c *connection) bool {
	version, _ := c.Properties["version"].(string)
	major, _, _ := strings.Cut(version, ".")
	return len(major) > 1 || major >= "4"
}
