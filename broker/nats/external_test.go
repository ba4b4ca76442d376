package nats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/nats"
)

// TestContractOnServer runs the suite on a NATS server as anybody would start
// it, with its limit of 1 MiB, through connections with the client's defaults.
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
	brokertest.Run(t, func(t *testing.T) broker.Broker {
		conn, err := gonats.Connect(s.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conn.Close)
		b, err := nats.New(bounded(t, 30*time.Second), conn, nats.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, brokertest.Options{Ordered: true, Limit: 1 << 19, TooLarge: 1<<20 + 1, Topics: noPattern})
}
