package etcd

import (
	"context"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a registry at an address.
func open(t testing.TB, address string) *Registry {
	t.Helper()
	u, err := engineurl.Parse("etcd", address)
	if err != nil {
		t.Fatal(err)
	}
	return openURL(t, u)
}

func openURL(t testing.TB, u *url.URL) *Registry {
	t.Helper()
	r, err := Open(u, slog.New(slog.NewTextHandler(t.Output(), nil)))
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

func bounded30(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// An etcd server grants no lease for less than two seconds, and looks for what
// ran out twice a second.
func TestSuite(t *testing.T) {
	s := testserver.Etcd(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry { return open(t, s.Addr) },
		registrytest.Options{MinTTL: 2 * time.Second, ExpirySlack: 3 * time.Second})
}
