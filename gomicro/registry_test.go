package gomicro_test

import (
	"log/slog"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	microcache "go-micro.dev/v5/registry/cache"
	microconsul "go-micro.dev/v5/registry/consul"

	"github.com/micro/sidecar/gomicro"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
)

// adapt adapts a registry of go-micro's that is looked at often.
func adapt(t *testing.T, r micro.Registry) *gomicro.Registry {
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
	shared := micro.NewMemoryRegistry()
	registrytest.Run(t, func(t *testing.T) registry.Registry { return adapt(t, shared) })
}

// go-micro's cache around it changes nothing.
func TestCachedSuite(t *testing.T) {
	shared := micro.NewMemoryRegistry()
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		cached := microcache.New(shared)
		t.Cleanup(cached.Stop)
		return adapt(t, cached)
	})
}

func TestConsulSuite(t *testing.T) {
	s := testserver.Consul(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return adapt(t, microconsul.NewConsulRegistry(micro.Addrs(s.Addr)))
	}, registrytest.Options{})
}
