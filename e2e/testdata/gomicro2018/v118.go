//go:build v118

package main

import (
	"context"
	"fmt"
	"log"

	"github.com/micro/go-micro/broker"
	"github.com/micro/go-micro/broker/http"
	"github.com/micro/go-micro/broker/memory"
	"github.com/micro/go-micro/broker/nats"
	"github.com/micro/go-micro/client"
	"github.com/micro/go-micro/client/selector"
	"github.com/micro/go-micro/debug/service/handler"
	"github.com/micro/go-micro/registry"
	"github.com/micro/go-micro/registry/etcd"
	"github.com/micro/go-micro/registry/mdns"
	memoryregistry "github.com/micro/go-micro/registry/memory"
	"github.com/micro/go-micro/server"
)

// Count answers one request with three messages.
func (*Say) Count(_ context.Context, s server.Stream) error {
	var req Hello
	if err := s.Recv(&req); err != nil {
		return err
	}
	for i := 0; i < 3; i++ {
		if err := s.Send(&Greeting{Msg: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	return nil
}

// newGRPC makes a gRPC server; a build with the tag grpc has it.
var newGRPC func(...server.Option) server.Server

func open(engine string, at registry.Option) registry.Registry {
	switch engine {
	case "etcd":
		return etcd.NewRegistry(at)
	case "mdns":
		return mdns.NewRegistry()
	case "memory":
		return memoryregistry.NewRegistry()
	}
	log.Fatalf("unknown registry %q", engine)
	return nil
}

func serve(kind string, reg registry.Registry, b broker.Broker, options ...server.Option) (server.Server, client.Client) {
	options = append(options, server.Broker(b))
	var srv server.Server
	if kind == "grpc" {
		srv = newGRPC(options...)
	} else {
		srv = server.NewServer(options...)
	}
	if err := srv.Handle(srv.NewHandler(handler.DefaultHandler)); err != nil { // as its service does
		log.Fatal(err)
	}
	return srv, client.NewClient(client.Registry(reg), client.Broker(b), client.Selector(selector.NewSelector(selector.Registry(reg))))
}

func openBroker(kind, address string, reg registry.Registry) broker.Broker {
	switch kind {
	case "http":
		return http.NewBroker(broker.Registry(reg), broker.Addrs("127.0.0.1:0"))
	case "nats":
		return nats.NewBroker(broker.Addrs("nats://" + address))
	}
	return memory.NewBroker()
}

func subscribe(b broker.Broker, topic, queue string, in *inbox) error {
	var options []broker.SubscribeOption
	if queue != "" {
		options = append(options, broker.Queue(queue))
	}
	_, err := b.Subscribe(topic, func(e broker.Event) error {
		m := e.Message()
		in.put(message{Topic: e.Topic(), Header: m.Header, Body: m.Body})
		return nil
	}, options...)
	return err
}
