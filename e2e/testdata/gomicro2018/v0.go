//go:build v0 || v1

package main

import (
	"log"

	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/consul"
	"github.com/micro/go-micro/registry/mdns"
	"github.com/micro/go-micro/selector"
	"github.com/micro/go-micro/server"
)

func open(engine string, at registry.Option) registry.Registry {
	switch engine {
	case "consul":
		return consul.NewRegistry(at)
	case "mdns":
		return mdns.NewRegistry()
	}
	log.Fatalf("unknown registry %q", engine)
	return nil
}

func serve(kind string, reg registry.Registry, options ...server.Option) (server.Server, client.Client) {
	if kind != "mucp" {
		log.Fatalf("unknown server %q", kind)
	}
	return server.NewServer(append(options, server.Broker(broker.NewBroker(broker.Registry(reg))))...),
		client.NewClient(client.Registry(reg), client.Selector(selector.NewSelector(selector.Registry(reg))))
}
