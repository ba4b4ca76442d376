package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/httpbroker"
	natsbroker "github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/consul"
	"github.com/micro/sidecar/registry/etcd"
	"github.com/micro/sidecar/registry/kubernetes"
	"github.com/micro/sidecar/registry/mdns"
	natsregistry "github.com/micro/sidecar/registry/nats"
	"github.com/micro/sidecar/registry/static"
)

// checkAddress says what is wrong with an engine's address, nil when none was
// given.
func checkAddress(name string, address *url.URL) error {
	if address == nil && name != "static" && name != "kubernetes" {
		return nil // each knows where its engine usually is
	}
	switch name {
	case "consul":
		reg, err := consul.Open(address, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		return reg.Close()
	case "etcd":
		return etcd.CheckAddress(address)
	case "nats":
		return checkNATS(address)
	case "rabbitmq":
		return rabbitmq.CheckAddress(address)
	case "redis":
		return redis.CheckAddress(address)
	case "kubernetes":
		return kubernetes.CheckAddress(address)
	case "mdns":
		return mdns.CheckAddress(address)
	case "static":
		return static.CheckAddress(address)
	case "http":
		if _, _, err := net.SplitHostPort(address.Host); err != nil {
			return fmt.Errorf("%q: expected the host:port where deliveries come in", address.Host)
		}
	case "embedded":
		return errors.New("the embedded engine has no address: --data_dir says which one is meant")
	}
	return nil
}

// checkBroker says what is wrong with a broker's address, where that is not
// what a registry of the same name would say.
func checkBroker(name string, address *url.URL) error {
	if name == "nats" && address != nil {
		return natsbroker.CheckAddress(address)
	}
	return checkAddress(name, address)
}

// consulRegistry opens the Consul agent at the address, or at the one that
// Consul's own environment names.
func consulRegistry(_ context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := consul.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// embeddedRegistry opens the registry in the embedded engine.
func embeddedRegistry(ctx context.Context, e sidecar.Env) (registry.Registry, error) {
	host, err := e.Engine(ctx)
	if err != nil {
		return nil, err
	}
	reg, err := natsregistry.New(ctx, host.RegistryConn(), natsregistry.Options{Full: host.Spent, Log: e.Log})
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// httpBroker opens go-micro's http broker; its address is where deliveries
// come in.
func httpBroker(_ context.Context, e sidecar.Env) (broker.Broker, error) {
	o := httpbroker.Options{Registry: e.Registry, MaxMessageSize: e.MaxBodySize, Log: e.Log}
	if e.Address != nil {
		o.Listen = e.Address.Host
	}
	messages, err := httpbroker.New(o)
	if err != nil {
		return nil, err
	}
	return messages, nil
}

// embeddedBroker opens the messaging in the embedded engine.
func embeddedBroker(ctx context.Context, e sidecar.Env) (broker.Broker, error) {
	host, err := e.Engine(ctx)
	if err != nil {
		return nil, err
	}
	messages, err := natsbroker.New(ctx, host.MessagesConn(), natsbroker.Options{MaxBytes: e.MaxBytes, Replicas: 1, Full: host.Full, Log: e.Log})
	if err != nil {
		return nil, err
	}
	return messages, nil
}

// staticRegistry opens the file at the address.
func staticRegistry(_ context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := static.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// mdnsRegistry takes part in multicast DNS.
func mdnsRegistry(_ context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := mdns.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// kubernetesRegistry follows the API server at the address, or the pod's own.
func kubernetesRegistry(_ context.Context, e sidecar.Env) (registry.Registry, error) {
	reg, err := kubernetes.Open(e.Address, e.Log)
	if err != nil {
		return nil, err
	}
	return reg, nil
}
