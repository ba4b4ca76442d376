package rabbitmq

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
)

// settle returns the options that the queue is to have.
func (b *Broker) settle(_ context.Context, _ *amqp.Channel, _ string, o broker.QueueOptions) (broker.QueueOptions, error) {
	return merge(broker.QueueOptions{}, o), nil
}
