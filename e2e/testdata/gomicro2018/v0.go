//go:build v0 || v1

package main

import (
	"log"

	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/http"
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

func serve(kind string, reg registry.Registry, b broker.Broker, options ...server.Option) (server.Server, client.Client) {
	if kind != "mucp" {
		log.Fatalf("unknown server %q", kind)
	}
	return server.NewServer(append(options, server.Broker(b))...),
		client.NewClient(client.Registry(reg), client.Broker(b), client.Selector(selector.NewSelector(selector.Registry(reg))))
}

// plugged has the brokers of go-plugins, where the version has them.
var plugged = map[string]func(address string) broker.Broker{}

func openBroker(kind, address string, reg registry.Registry) broker.Broker {
	if open := plugged[kind]; open != nil {
		return open(address)
	}
	return http.NewBroker(broker.Registry(reg), broker.Addrs("127.0.0.1:0"))
}

func subscribe(b broker.Broker, topic, queue string, in *inbox) error {
	var options []broker.SubscribeOption
	if queue != "" {
		options = append(options, broker.Queue(queue))
	}
	_, err := b.Subscribe(topic, func(p broker.Publication) error {
		m := p.Message()
		in.put(message{Topic: p.Topic(), Header: m.Header, Body: m.Body})
		return nil
	}, options...)
	return err
}
