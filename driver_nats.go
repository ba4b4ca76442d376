package sidecar

import (
	"context"
	"net/url"

	"github.com/micro/sidecar/broker"
	natsbroker "github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	natsregistry "github.com/micro/sidecar/registry/nats"
	"github.com/micro/sidecar/registry/natsquery"
)

// asksOnNATS reports whether the address wants go-micro's way over NATS, in
// which services are asked, rather than a bucket.
func asksOnNATS(address *url.URL) bool {
	return address != nil && address.Query().Get("layout") == "gomicro"
}

// checkNATS says what is wrong with a registry's address.
func checkNATS(address *url.URL) error {
	if asksOnNATS(address) {
		return natsquery.CheckAddress(address)
	}
	return natsregistry.CheckAddress(address)
}

// natsRegistry opens the registry on a NATS server that somebody else runs.
func natsRegistry(ctx context.Context, e sidecar.Env) (registry.Registry, error) {
	if asksOnNATS(e.Address) {
		reg, err := natsquery.Open(e.Address, e.Log)
		if err != nil {
			return nil, err
		}
		return reg, nil
	}
	reg, err := natsregistry.Open(ctx, e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// natsBroker opens the messaging on a NATS server that somebody else runs.
func natsBroker(ctx context.Context, e sidecar.Env) (broker.Broker, error) {
	messages, err := natsbroker.Open(ctx, e.Address, natsbroker.Options{MaxBytes: e.MaxBytes, Log: e.Log})
	if err != nil {
		return nil, err
	}
	return messages, nil
}
