package nats_test

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	gonats "github.com/nats-io/nats.go"
	microbroker "go-micro.dev/v5/broker"
	micronats "go-micro.dev/v5/broker/nats"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/brokertest"
	"github.com/micro/sidecar/broker/nats"
)

// natsServer starts one as anybody would.
func natsServer(t *testing.T, jetStream bool) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: jetStream, StoreDir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

func openExternal(t *testing.T, s *server.Server) *nats.External {
	t.Helper()
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	b, err := nats.Open(bounded(t, 30*time.Second), u, nats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// publishBare publishes bytes as any program may.
func publishBare(s *server.Server, subject, body string) error {
	conn, err := gonats.Connect(s.ClientURL())
	if err != nil {
		return err
	}
	defer conn.Close()
	return errors.Join(conn.Publish(subject, []byte(body)), conn.Flush())
}

func TestContractAsGoMicro(t *testing.T) {
	s := natsServer(t, true)
	brokertest.Run(t, func(t *testing.T) broker.Broker { return openExternal(t, s) },
		brokertest.Options{Ordered: true, Wait: time.Minute, Limit: 1 << 19, TooLarge: 1<<20 + 1, Topics: noPattern})
}

func TestContractWithoutJetStream(t *testing.T) {
	s := natsServer(t, false)
	brokertest.Run(t, func(t *testing.T) broker.Broker { return openExternal(t, s) },
		brokertest.Options{Ordered: true, Wait: time.Minute, Limit: 1 << 19, TooLarge: 1<<20 + 1, Topics: noPattern})
	b := openExternal(t, s)
	if _, err := b.Join(t.Context(), "t", "q", broker.JoinOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Join without JetStream: %v, want ErrUnsupported", err)
	}
}

func TestDurableContractAsGoMicro(t *testing.T) {
	s := natsServer(t, true)
	brokertest.RunDurable(t, func(t *testing.T) broker.Broker { return openExternal(t, s) },
		brokertest.Options{Ordered: true, Wait: time.Minute, Narrow: true})
}

// A service of go-micro v5 and this broker hear each other, headers intact.
func TestGoMicroService(t *testing.T) {
	s := natsServer(t, true)
	ours := openExternal(t, s)
	theirs := micronats.NewNatsBroker(microbroker.Addrs(s.ClientURL()))
	if err := theirs.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = theirs.Disconnect() })
	header := map[string]string{"Content-Type": "application/json", "Micro-Id": "x", "lower.Case": "ü\"", "Empty": ""}
	body := "\x00\xff{\"Header\":1}"

	arrived := make(chan *microbroker.Message, 10)
	if _, err := theirs.Subscribe("orders.eu", func(e microbroker.Event) error {
		arrived <- e.Message()
		return nil
	}, microbroker.Queue("workers")); err != nil {
		t.Fatal(err)
	}
	var live inbox
	subscribe(t, ours, "orders.*", "", live.handle)
	member, err := ours.Join(bounded(t, 30*time.Second), "orders.eu", "billing", broker.JoinOptions{Prefetch: 4})
	if err != nil {
		t.Fatal(err)
	}

	// From them: their subscription has no witness but a message that comes back.
	if err := theirs.Publish("orders.eu", &microbroker.Message{Header: header, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	check := func(who string, h map[string]string, b []byte) {
		t.Helper()
		if !maps.Equal(h, header) || string(b) != body {
			t.Errorf("%s got %q %q", who, h, b)
		}
	}
	receive := func() {
		t.Helper()
		h, err := member.Receive(bounded(t, 30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		check("our durable queue", h.Header, h.Body)
		if err := h.Ack(bounded(t, 30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	receive()
	within(t, 30*time.Second, "our live subscriber hears them", func() bool { return len(live.bodies()) == 1 })
	live.mu.Lock()
	check("our live subscriber", live.got[0].Header, live.got[0].Body)
	if live.got[0].Topic != "orders.eu" {
		t.Errorf("topic %q", live.got[0].Topic)
	}
	live.mu.Unlock()
	theirOwn := <-arrived
	check("their subscriber", theirOwn.Header, theirOwn.Body)

	// From us.
	if err := ours.Publish(bounded(t, 30*time.Second), "orders.eu", broker.Message{Header: header, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	select {
	case m := <-arrived:
		if m.Header["Micro-Topic"] != "orders.eu" { // by which their servers of v1.17 to v4 find a handler
			t.Errorf("their subscriber got %q", m.Header)
		}
		delete(m.Header, "Micro-Topic")
		check("their subscriber", m.Header, m.Body)
	case <-time.After(30 * time.Second):
		t.Fatal("their subscriber does not hear us")
	}
	receive()
}

// What is not in go-micro's form is a body.
func TestBareBodies(t *testing.T) {
	s := natsServer(t, true)
	b := openExternal(t, s)
	var in inbox
	subscribe(t, b, "bare", "", in.handle)
	bodies := []string{"text", "", "{}", `{"Header":{}}`, `{"Body":"not base64!"}`, `{"Header":{},"Body":"eA==","More":1}`, `{"Header":{},"Body":"eA=="} x`, "[1]", "null"}
	for _, body := range bodies {
		if err := publishBare(s, "bare", body); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, "all arrive", func() bool { return len(in.bodies()) == len(bodies) })
	if got := in.bodies(); fmt.Sprint(got) != fmt.Sprint(bodies) {
		t.Errorf("got %q", got)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"Header":{"a":"b"},"Body":"eA=="}`))
	f.Add([]byte(`{"Header":null,"Body":""} `))
	f.Fuzz(func(t *testing.T, data []byte) { nats.DecodeEnvelope(data) })
}
