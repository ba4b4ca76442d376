package httpbroker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	micro "go-micro.dev/v5/broker"
	microregistry "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// shared is go-micro's view of a registry of ours: what both register is seen
// by both.
type shared struct {
	microregistry.Registry // nil: what is not below is not used
	ours                   registry.Registry
}

func (s shared) Register(service *microregistry.Service, options ...microregistry.RegisterOption) error {
	var o microregistry.RegisterOptions
	for _, option := range options {
		option(&o)
	}
	return s.ours.Register(context.Background(), toOurs(service), o.TTL)
}

func (s shared) Deregister(service *microregistry.Service, _ ...microregistry.DeregisterOption) error {
	return s.ours.Deregister(context.Background(), toOurs(service))
}

func (s shared) GetService(name string, _ ...microregistry.GetOption) ([]*microregistry.Service, error) {
	services, err := s.ours.Get(context.Background(), name)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, microregistry.ErrNotFound
	}
	var out []*microregistry.Service
	for _, service := range services {
		theirs := &microregistry.Service{Name: service.Name, Version: service.Version}
		for _, n := range service.Nodes {
			theirs.Nodes = append(theirs.Nodes, &microregistry.Node{Id: n.ID, Address: n.HostPort(), Metadata: n.Metadata})
		}
		out = append(out, theirs)
	}
	return out, err
}

// Watch tells nothing: these tests subscribe before go-micro publishes.
func (s shared) Watch(...microregistry.WatchOption) (microregistry.Watcher, error) {
	ctx, cancel := context.WithCancel(context.Background())
	return silent{ctx, cancel}, nil
}

type silent struct {
	ctx  context.Context
	stop context.CancelFunc
}

func (w silent) Next() (*microregistry.Result, error) {
	<-w.ctx.Done()
	return nil, microregistry.ErrWatcherStopped
}

func (w silent) Stop() { w.stop() }

func (s shared) Options() microregistry.Options { return microregistry.Options{} }
func (s shared) String() string                 { return "shared" }

func toOurs(s *microregistry.Service) registry.Service {
	out := registry.Service{Name: s.Name, Version: s.Version}
	for _, n := range s.Nodes {
		host, port, _ := net.SplitHostPort(n.Address)
		number, _ := strconv.Atoi(port)
		out.Nodes = append(out.Nodes, registry.Node{ID: n.Id, Address: host, Port: number, Metadata: n.Metadata})
	}
	return out
}

// openMicro returns a go-micro broker over the registry.
func openMicro(t *testing.T, r registry.Registry) micro.Broker {
	t.Helper()
	b := micro.NewHttpBroker(micro.Registry(shared{ours: r}))
	if err := b.Init(); err != nil {
		t.Fatal(err)
	}
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Disconnect() })
	return b
}

func subscribeMicro(t *testing.T, b micro.Broker, topic, queue string) <-chan *micro.Message {
	t.Helper()
	got := make(chan *micro.Message, 100)
	var options []micro.SubscribeOption
	if queue != "" {
		options = append(options, micro.Queue(queue))
	}
	s, err := b.Subscribe(topic, func(e micro.Event) error { got <- e.Message(); return nil }, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Unsubscribe() })
	return got
}

func TestGoMicroSubscribes(t *testing.T) {
	r := memory.New()
	us := open(t, r)
	first, second := openMicro(t, r), openMicro(t, r)
	plain := subscribeMicro(t, first, "a topic/x", "")
	other := subscribeMicro(t, first, "other", "")
	a, b := subscribeMicro(t, second, "a topic/x", "q"), subscribeMicro(t, openMicro(t, r), "a topic/x", "q")
	ours, _ := subscribe(t, us, "a topic/x", "q")
	const messages = 30
	for i := range messages {
		publish(t, us, "a topic/x", strconv.Itoa(i))
	}
	for i := range messages {
		select {
		case m := <-plain:
			if string(m.Body) != strconv.Itoa(i) || m.Header["k"] != "v" || m.Header["Content-Type"] != "text/plain" || m.Header["Micro-Topic"] != "a topic/x" {
				t.Fatalf("message %d: %q %q", i, m.Header, m.Body)
			}
		case <-time.After(wait):
			t.Fatalf("message %d did not arrive", i)
		}
	}
	var queue []int
	for range messages {
		var body []byte
		select {
		case m := <-a:
			body = m.Body
		case m := <-b:
			body = m.Body
		case d := <-ours:
			body = d.Body
		case <-time.After(wait):
			t.Fatalf("the queue got %d of %d", len(queue), messages)
		}
		n, _ := strconv.Atoi(string(body))
		queue = append(queue, n)
	}
	slices.Sort(queue)
	for i, n := range queue {
		if n != i {
			t.Fatalf("the queue got %v", queue)
		}
	}
	if extra := len(a) + len(b) + len(ours) + len(other) + len(plain); extra > 0 {
		t.Errorf("%d messages too many", extra)
	}
}

func TestGoMicroPublishes(t *testing.T) {
	r := memory.New()
	us, them := open(t, r), openMicro(t, r)
	plain, _ := subscribe(t, us, "t", "")
	second, _ := subscribe(t, us, "t", "")
	a, _ := subscribe(t, us, "t", "q")
	b, _ := subscribe(t, open(t, r), "t", "q")
	other, _ := subscribe(t, us, "other", "")
	const messages = 20
	for i := range messages {
		m := &micro.Message{Header: map[string]string{"k": "v", "lower-Case": ""}, Body: fmt.Append(nil, i)}
		if err := them.Publish("t", m); err != nil {
			t.Fatal(err)
		}
	}
	// go-micro sends in the background, in no order.
	for _, from := range []<-chan broker.Delivery{plain, second} {
		seen := map[string]bool{}
		for range messages {
			d := receive(t, from)
			if d.Topic != "t" || len(d.Header) != 2 || d.Header["k"] != "v" {
				t.Fatalf("arrived on %q: %q", d.Topic, d.Header)
			}
			seen[string(d.Body)] = true
		}
		if len(seen) != messages {
			t.Errorf("%d different messages, want %d", len(seen), messages)
		}
	}
	for n := 0; n < messages; n++ {
		select {
		case <-a:
		case <-b:
		case <-time.After(wait):
			t.Fatalf("the queue got %d of %d", n, messages)
		}
	}
	if extra := len(plain) + len(second) + len(a) + len(b) + len(other); extra > 0 {
		t.Errorf("%d messages too many", extra)
	}
}
