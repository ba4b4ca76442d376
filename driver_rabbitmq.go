package sidecar

import (
	"context"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/sidecar"
)

// rabbitMQBroker opens the messaging on the RabbitMQ server at the address, or on
// the one of this machine.
func rabbitMQBroker(_ context.Context, e sidecar.Env) (broker.Broker, error) {
	messages, err := rabbitmq.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return messages, nil
}
