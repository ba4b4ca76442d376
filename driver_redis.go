package sidecar

import (
	"context"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/sidecar"
)

// redisBroker opens the messaging on the Redis server at the address, or on
// the one of this machine.
func redisBroker(_ context.Context, e sidecar.Env) (broker.Broker, error) {
	messages, err := redis.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return messages, nil
}
