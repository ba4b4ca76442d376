package sidecar

import (
	"context"

	"github.com/micro/sidecar/broker"
	natsbroker "github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	natsregistry "github.com/micro/sidecar/registry/nats"
)

// natsRegistry opens the registry on a NATS server that somebody else runs.
func natsRegistry(ctx context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := natsregistry.Open(ctx, e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// natsBroker opens the messaging on a NATS server that somebody else runs.
func natsBroker(ctx context.Context, e sidecar.Env) (broker.Broker, error) {
	messages, err := natsbroker.Open(ctx, e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return messages, nil
}
