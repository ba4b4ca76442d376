// Command plugins is a micro with go-micro's own NATS and mDNS registries, and
// its NATS broker.
package main

import (
	micronats "go-micro.dev/v5/broker/nats"
	microregistry "go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/nats"

	"github.com/micro/sidecar"
	"github.com/micro/sidecar/gomicro"
)

func main() {
	sidecar.Main(
		sidecar.Standard(),
		gomicro.Registry("gonats", nats.NewNatsRegistry),
		gomicro.Registry("gonats4", func(o ...microregistry.Option) microregistry.Registry { // go-micro v4's subjects
			return nats.NewNatsRegistry(append(o, nats.QueryTopic("micro.registry.nats.query"), nats.WatchTopic("micro.registry.nats.watch"))...)
		}),
		gomicro.Registry("gomdns", microregistry.NewMDNSRegistry),
		gomicro.Broker("gonats", micronats.NewNatsBroker),
	)
}
