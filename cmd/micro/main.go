// Command micro runs a sidecar beside an application, and talks to one.
//
// The table below is all there is to plugging in: a registry or broker of your
// own is one line in a copy of this folder.
package main

import (
	"context"
	"os"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/cli"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr, drivers()))
}

// drivers is what --registry and --broker may name.
func drivers() sidecar.Drivers {
	return sidecar.Drivers{
		Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){
			"consul":   consulRegistry,
			"embedded": embeddedRegistry,
		},
		Brokers: map[string]func(context.Context, sidecar.Env) (broker.Broker, error){
			"http":     httpBroker,
			"embedded": embeddedBroker,
			"nats":     natsBroker,
		},
		CheckAddress: checkAddress,
	}
}
