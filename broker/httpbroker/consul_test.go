package httpbroker

import (
	"log/slog"
	"net/url"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/consul"
)

func openConsul(t *testing.T, s *testserver.ConsulServer) registry.Registry {
	t.Helper()
	r, err := consul.Open(&url.URL{Scheme: "consul", Host: s.Addr}, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// TestOverConsul is the suite as sidecars beside Consul use the broker: each
// with a registry of its own, over one agent.
func TestOverConsul(t *testing.T) {
	server := testserver.Consul(t)
	open := func(t *testing.T) broker.Broker { return open(t, openConsul(t, server)) }
	brokertest.Run(t, open, brokertest.Options{
		Ordered:  true,
		Limit:    DefaultMaxMessageSize,
		TooLarge: DefaultMaxMessageSize + 1,
	})
}
