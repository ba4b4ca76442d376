package consul

import (
	"log/slog"
	"net/url"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a registry on the agent.
func open(t *testing.T, s *testserver.ConsulServer) *Registry {
	t.Helper()
	r, err := Open(&url.URL{Scheme: "consul", Host: s.Addr}, slog.New(slog.NewTextHandler(t.Output(), nil)))
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

func TestSuite(t *testing.T) {
	// One for all: an agent has room for an id once, and two registries that
	// write the same id of two services at the same moment do not see each other.
	r := open(t, testserver.Consul(t))
	registrytest.Run(t, func(*testing.T) registry.Registry { return r })
}
