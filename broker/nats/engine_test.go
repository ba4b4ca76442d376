package nats_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

// within polls until ok holds.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// inbox keeps what a subscription receives.
type inbox struct {
	mu  sync.Mutex
	got []broker.Delivery
}

func (i *inbox) handle(d broker.Delivery) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.got = append(i.got, d)
}

func (i *inbox) bodies() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []string
	for _, d := range i.got {
		all = append(all, string(d.Body))
	}
	return all
}

func subscribe(t testing.TB, b broker.Broker, topic, queue string, h broker.Handler) {
	t.Helper()
	s, err := b.Subscribe(bounded(t, 30*time.Second), topic, broker.SubscribeOptions{Queue: queue}, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
}

func publish(t testing.TB, b broker.Broker, topic, body string) {
	t.Helper()
	if err := b.Publish(bounded(t, 30*time.Second), topic, broker.Message{Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

// consumer makes a durable consumer of the broker's stream: from then on the
// stream keeps what is published.
func consumer(t testing.TB, e *engine.Engine) jetstream.Consumer {
	t.Helper()
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.CreateOrUpdateConsumer(bounded(t, 30*time.Second), nats.DefaultStream, jetstream.ConsumerConfig{Durable: "all"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTakeOver(t *testing.T) {
	dir := t.TempDir()
	host := enginetest.Start(t, dir, "")
	e := openEngine(t, dir)
	b := openBroker(t, e, nats.Options{})
	var plain, shared inbox
	subscribe(t, b, "a.topic", "", plain.handle)
	subscribe(t, b, "a.topic", "q", shared.handle)
	subscribe(t, b, "a.topic", "q", shared.handle)
	durable := consumer(t, e)

	kill := time.AfterFunc(50*time.Millisecond, host.Kill)
	defer kill.Stop()
	acked := map[string]bool{}
	last, longest, failed := time.Now(), time.Duration(0), 0
	end := time.Now().Add(time.Second)
	for i := 0; time.Now().Before(end) || !e.Hosting() && time.Now().Before(end.Add(30*time.Second)); i++ {
		body := fmt.Sprint(i)
		if err := b.Publish(bounded(t, 10*time.Second), "a.topic", broker.Message{Body: []byte(body)}); err != nil {
			t.Logf("publish %s: %v", body, err)
			failed++
			continue
		}
		acked[body] = true
		longest, last = max(longest, time.Since(last)), time.Now()
	}
	if !e.Hosting() {
		t.Error("this process has not taken over")
	}
	t.Logf("%d acknowledged, %d failed, longest time without %v", len(acked), failed, longest)
	if longest > 10*time.Second || failed > 1 { // 2 s, and what a busy machine adds
		t.Errorf("publishing stopped for %v with %d failures", longest, failed)
	}
	for n := 0; len(acked) > 0; n++ {
		m, err := durable.Next(jetstream.FetchMaxWait(30 * time.Second))
		if err != nil {
			t.Fatalf("%d acknowledged messages are not in the stream: %v", len(acked), err)
		}
		delete(acked, string(m.Data()))
		if err := m.Ack(); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, b, "a.topic", "after")
	for _, in := range []*inbox{&plain, &shared} {
		within(t, 30*time.Second, "the subscription lives on", func() bool { return slices.Contains(in.bodies(), "after") })
	}
	if n := slices.Index(shared.bodies(), "after"); slices.Contains(shared.bodies()[n+1:], "after") {
		t.Error("the queue got a message twice")
	}
}

func TestNothingIsKeptForNobody(t *testing.T) {
	e := openEngine(t, t.TempDir())
	b := openBroker(t, e, nats.Options{})
	for range 10 {
		publish(t, b, "t", "x")
	}
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), nats.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := stream.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("the stream keeps %d messages", n)
	}
}

func TestStreamRemoved(t *testing.T) {
	e := openEngine(t, t.TempDir())
	b := openBroker(t, e, nats.Options{})
	js, err := jetstream.New(e.MessagesConn())
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), nats.DefaultStream); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "t", "x")
	if _, err := js.Stream(t.Context(), nats.DefaultStream); err != nil {
		t.Errorf("the stream is not there again: %v", err)
	}
}

// TestForeignMessages come from programs that do not know our form.
func TestForeignMessages(t *testing.T) {
	e := openEngine(t, t.TempDir())
	b := openBroker(t, e, nats.Options{})
	var in inbox
	subscribe(t, b, "t", "", in.handle)
	for _, field := range []string{"", "%zz", "a;b", "a=1&a=2", strings.Repeat("k&", 20000)} {
		m := gonats.NewMsg(nats.DefaultPrefix + ".t")
		m.Data = []byte("x")
		if field != "" {
			m.Header["Micro-Header"] = []string{field}
		}
		if err := e.MessagesConn().PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 30*time.Second, "all arrive", func() bool { return len(in.bodies()) == 5 })
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, want := range []map[string]string{{}, {}, {}, {"a": "1"}, {}} {
		if have := in.got[i].Header; !maps.Equal(have, want) || have == nil {
			t.Errorf("header %d: %v, want %v", i, have, want)
		}
	}
}

// TestTopicsStayInside publishes to topics that look like a way out.
func TestTopicsStayInside(t *testing.T) {
	e := openEngine(t, t.TempDir())
	b := openBroker(t, e, nats.Options{})
	all, err := e.MessagesConn().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	topics := []string{"$JS.API.STREAM.DELETE.micro-messages", "_INBOX.a", ">", "*", "a b", "a\r\nPUB x 0", strings.Repeat(".", 9000)}
	for _, topic := range topics {
		publish(t, b, topic, "x")
	}
	ours := 0
	for ours < len(topics) {
		m, err := all.NextMsg(30 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		rest, inside := strings.CutPrefix(m.Subject, nats.DefaultPrefix+".")
		if inside {
			ours++
		}
		if inside && strings.ContainsAny(rest, "*> $") {
			t.Errorf("subject %q", m.Subject)
		}
	}
	publish(t, b, "still", "here")
}

// syncBuffer is a log that a test reads while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestSlowHandlerIsBounded(t *testing.T) {
	var log syncBuffer
	e := openEngine(t, t.TempDir())
	b := openBroker(t, e, nats.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	var in inbox
	blocked, release := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() {
		close(blocked)
		<-release
	})
	subscribe(t, b, "t", "", func(d broker.Delivery) {
		first()
		d.Body = d.Body[:1]
		in.handle(d)
	})
	publish(t, b, "t", "x")
	<-blocked
	body := strings.Repeat("x", 4<<20)
	for range 30 { // 120 MiB behind it
		publish(t, b, "t", body)
	}
	close(release)
	within(t, 30*time.Second, "some arrive", func() bool { return len(in.bodies()) > 10 })
	publish(t, b, "t", "last")
	within(t, 30*time.Second, "the loss is told", func() bool { return strings.Contains(log.String(), "lost=") })
	if n := len(in.bodies()); n > 20 {
		t.Errorf("%d messages of 4 MiB waited, want at most 64 MiB of them", n)
	}
}

func TestOptions(t *testing.T) {
	e := openEngine(t, t.TempDir())
	for _, prefix := range []string{"a.b", ">", "$JS", "a b"} {
		if _, err := nats.New(t.Context(), e.MessagesConn(), nats.Options{Prefix: prefix}); err == nil {
			t.Errorf("prefix %q: no error", prefix)
		}
	}
	other := openBroker(t, e, nats.Options{Prefix: "other", Stream: "other"})
	b := openBroker(t, e, nats.Options{})
	var in inbox
	subscribe(t, b, "t", "", in.handle)
	publish(t, other, "t", "elsewhere")
	publish(t, b, "t", "here")
	within(t, 30*time.Second, "one arrives", func() bool { return len(in.bodies()) > 0 })
	if got := in.bodies(); !slices.Equal(got, []string{"here"}) {
		t.Errorf("got %q", got)
	}
}

func TestConnectionClosed(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir)
	b := openBroker(t, e, nats.Options{})
	if err := b.Ping(t.Context()); err != nil {
		t.Errorf("Ping: %v", err)
	}
	e.MessagesConn().Close()
	if err := b.Ping(bounded(t, 10*time.Second)); err == nil {
		t.Error("Ping on a closed connection: no error")
	}
	start := time.Now()
	if err := b.Publish(bounded(t, 100*time.Millisecond), "t", broker.Message{}); err == nil || errors.Is(err, broker.ErrClosed) {
		t.Errorf("Publish on a closed connection: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Publish took %v, its context 100ms", took)
	}
}
