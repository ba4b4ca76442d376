package sidecar

import (
	"context"
	"maps"
	"slices"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

// Standard is the table of the plain micro: what its --registry and --broker
// may name.
func Standard() Plugin {
	return engines(sidecar.Drivers{
		Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){
			"consul":     consulRegistry,
			"embedded":   embeddedRegistry,
			"etcd":       etcdRegistry,
			"kubernetes": kubernetesRegistry,
			"mdns":       mdnsRegistry,
			"nats":       natsRegistry,
			"static":     staticRegistry,
		},
		Brokers: map[string]func(context.Context, sidecar.Env) (broker.Broker, error){
			"http":     httpBroker,
			"embedded": embeddedBroker,
			"nats":     natsBroker,
			"rabbitmq": rabbitMQBroker,
			"redis":    redisBroker,
		},
		CheckAddress: checkAddress,
		CheckBroker:  checkBroker,
	})
}

// engines enters drivers that know the inside of the sidecar.
func engines(d sidecar.Drivers) Plugin {
	return func(t *table) {
		for _, name := range slices.Sorted(maps.Keys(d.Registries)) {
			enter(t, "registry", name, false, t.drivers.Registries, d.Registries[name])
		}
		for _, name := range slices.Sorted(maps.Keys(d.Brokers)) {
			enter(t, "broker", name, false, t.drivers.Brokers, d.Brokers[name])
		}
		t.drivers.CheckAddress, t.drivers.CheckBroker = d.CheckAddress, d.CheckBroker
	}
}
