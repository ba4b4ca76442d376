package gomicro_test

import (
	"log/slog"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	microcache "go-micro.dev/v5/registry/cache"
	microconsul "go-micro.dev/v5/registry/consul"
	micronats "go-micro.dev/v5/registry/nats"

	"github.com/micro/sidecar/gomicro"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
)

// adapt adapts a registry of go-micro's that is looked at often.
func adapt(t *testing.T, r micro.Registry) *gomicro.RegistryAdapter {
	t.Helper()
	a := gomicro.NewRegistry(r, gomicro.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Refresh: 200 * time.Millisecond})
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestMemorySuite(t *testing.T) {
	t.Parallel()
	shared := micro.NewMemoryRegistry()
	registrytest.Run(t, func(t *testing.T) registry.Registry { return adapt(t, shared) })
}

// go-micro's cache around it changes nothing.
func TestCachedSuite(t *testing.T) {
	t.Parallel()
	shared := micro.NewMemoryRegistry()
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		cached := microcache.New(shared)
		t.Cleanup(cached.Stop)
		return adapt(t, cached)
	})
}

// What go-micro writes to Consul has no room for everything.
func TestConsulSuite(t *testing.T) {
	t.Parallel()
	s := testserver.Consul(t)
	const oneID = "go-micro's Consul code knows a node by its id alone: two services cannot share one"
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return adapt(t, microconsul.NewConsulRegistry(micro.Addrs(s.Addr)))
	}, registrytest.Options{
		Kept: withoutMetadata,
		Lacks: map[string]string{
			"Independent": oneID, "Expiry": oneID, "Renewal": oneID, "WatchConcurrentWriters": oneID, "NamesAndIDs": oneID + ", and it does not encode what Consul refuses",
			"Addresses": "it has no form for unix sockets", "Metadata": "Consul refuses more than 64 pairs, and keys with dots",
		},
	})
}

// withoutMetadata is what is left where only nodes have metadata.
func withoutMetadata(s registry.Service) registry.Service {
	s.Metadata = nil
	return s
}

func TestNATSSuite(t *testing.T) {
	t.Parallel()
	url := natsServer(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		// Who answers later is not there: its 100 ms are few for a busy machine.
		const patience = 250 * time.Millisecond
		return adapt(t, micronats.NewNatsRegistry(micro.Addrs(url), micro.Timeout(patience), micronats.NatsOptions(natsOptions())))
	}, registrytest.Options{Lacks: map[string]string{
		"NamesAndIDs": "each question takes as long as answers are waited for: the registrations expire before all are asked for",
	}})
}
