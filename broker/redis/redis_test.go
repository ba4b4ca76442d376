package redis_test

import (
	"net/url"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/testserver"
)

// open returns a broker on the server.
func open(t testing.TB, server *testserver.RedisServer) *redis.Broker {
	t.Helper()
	b, err := redis.Open(&url.URL{Scheme: "redis", Host: server.Addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBroker(t *testing.T) {
	server := testserver.Redis(t)
	brokertest.Run(t, func(t *testing.T) broker.Broker { return open(t, server) }, brokertest.Options{
		Ordered: true, TooLarge: redis.MaxMessage + 1,
	})
}

func TestDurable(t *testing.T) {
	server := testserver.Redis(t)
	brokertest.RunDurable(t, func(t *testing.T) broker.Broker { return open(t, server) }, brokertest.Options{Ordered: true})
}
