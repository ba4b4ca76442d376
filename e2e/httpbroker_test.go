//go:build unix

package e2e

import (
	"strconv"
	"testing"
	"time"

	"go-micro.dev/v5/broker"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"

	"github.com/micro/sidecar/internal/testserver"
)

// TestGoMicroBroker has a real go-micro v5 service on the agent of the
// sidecar, with the http broker of both.
func TestGoMicroBroker(t *testing.T) {
	t.Parallel()
	agent := testserver.Consul(t)
	w := newWorld(t, noConsul).with(registryAt("consul", agent.Addr)...)
	s := w.sidecar(t)
	got := map[string]<-chan *broker.Message{
		"":  goMicroSubscribe(t, goMicroBroker(t, agent.Addr), "peers"),
		"q": goMicroSubscribe(t, goMicroBroker(t, agent.Addr), "peers", broker.Queue("q")),
	}
	plain, queued := s.subscribe("peers", ""), s.subscribe("peers", "q")

	// From the sidecar: to the subscriber of each kind, and one of the queue.
	const messages = 20
	for i := range messages {
		s.ask("POST", "/broker?topic=peers", strconv.Itoa(i), "K", "v", contentType, "text/plain").is(t, 200, "")
	}
	for i := range messages {
		if m := plain.message(); string(m.Body) != strconv.Itoa(i) {
			t.Errorf("message %d to ours: %s", i, m.Body)
		}
		m := receive(t, got[""])
		if string(m.Body) != strconv.Itoa(i) || m.Header["K"] != "v" || m.Header["Content-Type"] != "text/plain" || m.Header["Micro-Topic"] != "peers" {
			t.Errorf("message %d to theirs: %v %s", i, m.Header, m.Body)
		}
	}
	within(t, patient, "the queue to have every message", func() bool { return len(got["q"])+len(queued.frames) >= messages })
	if ours, all := len(queued.frames), len(got["q"])+len(queued.frames); ours == 0 || ours == all || all != messages {
		t.Errorf("the queue: %d to ours of %d", ours, all)
	}

	// From go-micro, which sends in the background and in no order.
	ours := []*socket{s.subscribe("back", ""), s.subscribe("back", "q"), w.sidecar(t).subscribe("back", "q")}
	theirs := goMicroBroker(t, agent.Addr)
	for i := range messages {
		if err := theirs.Publish("back", &broker.Message{Header: map[string]string{"K": "v"}, Body: strconv.AppendInt(nil, int64(i), 10)}); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for range messages {
		m := ours[0].message()
		seen[string(m.Body)] = true
		if m.Header["K"] != "v" {
			t.Errorf("header %v", m.Header)
		}
	}
	if len(seen) != messages {
		t.Errorf("%d of %d messages came from go-micro", len(seen), messages)
	}
	within(t, patient, "the queue to have every message", func() bool { return len(ours[1].frames)+len(ours[2].frames) >= messages })
	if n := len(ours[1].frames) + len(ours[2].frames); n != messages {
		t.Errorf("the queue got %d messages, want %d", n, messages)
	}
}

// goMicroBroker is a service of its own: go-micro tells subscriptions of one
// service on one topic apart by nothing that Consul would keep.
func goMicroBroker(t *testing.T, agent string) broker.Broker {
	t.Helper()
	b := broker.NewHttpBroker(broker.Registry(consul.NewConsulRegistry(registry.Addrs(agent))))
	if err := b.Init(); err != nil {
		t.Fatal(err)
	}
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Disconnect() }) // it closes what is left
	return b
}

func goMicroSubscribe(t *testing.T, b broker.Broker, topic string, options ...broker.SubscribeOption) <-chan *broker.Message {
	t.Helper()
	got := make(chan *broker.Message, 100)
	sub, err := b.Subscribe(topic, func(e broker.Event) error { got <- e.Message(); return nil }, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sub.Unsubscribe(); err != nil {
			t.Error(err)
		}
	})
	return got
}

func receive(t *testing.T, from <-chan *broker.Message) *broker.Message {
	t.Helper()
	select {
	case m := <-from:
		return m
	case <-time.After(patient):
		t.Fatal("no message came")
		return nil
	}
}
