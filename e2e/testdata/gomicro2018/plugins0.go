//go:build v0

package main

import (
	"github.com/micro/go-micro/broker"
	"github.com/micro/go-plugins/broker/nats"
	"github.com/micro/go-plugins/broker/rabbitmq"
)

// What the next versions of go-plugins need is not to be had any more.
func init() {
	plugged["nats"] = func(address string) broker.Broker { return nats.NewBroker(broker.Addrs("nats://" + address)) }
	plugged["rabbitmq"] = func(address string) broker.Broker {
		return rabbitmq.NewBroker(broker.Addrs("amqp://guest:guest@" + address))
	}
}
