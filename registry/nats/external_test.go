package nats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/nats"
	"github.com/micro/sidecar/registry/registrytest"
)

// TestContractOnServer runs the suite on a NATS server as anybody would start
// it, through connections with the client's defaults.
func TestContractOnServer(t *testing.T) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	registrytest.Run(t, func(t *testing.T) registry.Registry {
		conn, err := gonats.Connect(s.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		r, err := nats.New(bounded(t, 30*time.Second), conn, nats.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		return r
	})
}
