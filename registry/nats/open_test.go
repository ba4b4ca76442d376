package nats_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/nats"
	"github.com/micro/sidecar/registry/registrytest"
)

// dial opens a registry at an address, as --registry_address gives it.
func dial(t testing.TB, address string) *nats.External {
	t.Helper()
	u, err := engineurl.Parse("nats", address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := nats.Open(bounded(t, 30*time.Second), u, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func TestContractAtAddress(t *testing.T) {
	s := testserver.NATS(t)
	registrytest.Run(t, func(t *testing.T) registry.Registry { return dial(t, s.Addr) })
}

func TestContractOnCluster(t *testing.T) {
	servers := testserver.NATSCluster(t, 3)
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		return dial(t, servers[0].Addr+","+servers[1].Addr+","+servers[2].Addr+"?replicas=3&bucket=contract")
	})
}

// Of three servers one may be lost, whichever leads.
func TestServerLost(t *testing.T) {
	servers := testserver.NATSCluster(t, 3)
	r := dial(t, servers[0].Addr+","+servers[1].Addr+","+servers[2].Addr+"?replicas=3")
	put := func(name string, ttl time.Duration) {
		within(t, 30*time.Second, "registered", func() bool { // while the cluster elects, it refuses
			return r.Register(bounded(t, 5*time.Second), service(name, "n"), ttl) == nil
		})
	}
	put("stays", 0)
	for i, s := range servers {
		put("mortal", 2*time.Second)
		s.Stop()
		within(t, 30*time.Second, "read with one lost", func() bool {
			_, err := r.Get(bounded(t, 5*time.Second), "stays")
			return err == nil
		})
		within(t, 30*time.Second, "what is not renewed is gone", func() bool {
			_, err := r.Get(bounded(t, 5*time.Second), "mortal")
			return errors.Is(err, registry.ErrNotFound)
		})
		put("during", 0)
		s.Start()
		within(t, 60*time.Second, "the server has caught up", func() bool {
			return servers[i].Current("micro-registry")
		})
	}
}

func TestServerRestarts(t *testing.T) {
	s := testserver.NATS(t)
	r := dial(t, s.Addr)
	w := watch(t, r.Registry)
	register(t, r.Registry, "svc", time.Hour)
	within(t, 30*time.Second, "a registration", func() bool { return w.nodes("svc") == 1 })
	s.Stop()
	within(t, 30*time.Second, "Ping of a stopped server gives the reason", func() bool {
		err := r.Ping(bounded(t, time.Second))
		return err != nil && strings.Contains(err.Error(), "refused")
	})
	s.Start()
	within(t, 30*time.Second, "the watch is live again", func() bool { return w.zeros() == 2 })
	if _, err := r.Get(bounded(t, 30*time.Second), "svc"); err != nil {
		t.Errorf("Get: %v", err)
	}
	s.Stop()
	s.Wipe()
	s.Start()
	within(t, 30*time.Second, "an empty server is noticed", func() bool {
		_, err := r.Get(bounded(t, 5*time.Second), "svc")
		return errors.Is(err, registry.ErrNotFound)
	})
	within(t, 30*time.Second, "registered again", func() bool {
		return r.Register(bounded(t, 5*time.Second), service("svc", "n"), time.Hour) == nil
	})
}

func TestCredentials(t *testing.T) {
	s := testserver.NATS(t, func(o *server.Options) { o.Username, o.Password = "micro", "sécret/" })
	dial(t, "micro:s%C3%A9cret%2F@"+s.Addr)
	u, err := engineurl.Parse("nats", "micro:wrong@"+s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = nats.Open(ctx, u, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "Authorization Violation") || strings.Contains(err.Error(), "wrong") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string]string{
		"h:1,[::1]:2?bucket=x&replicas=3": "",
		"tls://h?server_name=x":           "",
		"nats://h?bukket=x":               `unknown parameter "bukket" (did you mean bucket?)`,
		"nats://h?bucket=a.b":             "letters, digits",
		"nats://h?replicas=9":             "from 1 to 5",
		"http://h":                        "expected nats or tls",
	} {
		u, err := engineurl.Parse("nats", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := nats.CheckAddress(u); (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}
