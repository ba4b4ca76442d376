package rabbitmq_test

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/rabbitmq"
	"github.com/micro/sidecar/internal/testserver"
)

// A broker behind a network that fails, while it publishes and receives: calls
// end in time, what was confirmed comes, all goes on by itself, and no
// connection is left.
func TestCutOff(t *testing.T) {
	server := testserver.RabbitMQ(t)
	ways := map[string]struct{ cut, heal func(*testserver.Relay) }{
		"both":  {(*testserver.Relay).Cut, (*testserver.Relay).Forget},
		"to":    {(*testserver.Relay).CutToServer, (*testserver.Relay).Heal},
		"from":  {(*testserver.Relay).CutToClient, (*testserver.Relay).Heal},
		"reset": {nil, (*testserver.Relay).Reset},
		"slow":  {func(r *testserver.Relay) { r.Slow(100*time.Millisecond, 64<<10) }, (*testserver.Relay).Heal},
	}
	t.Run("ways", func(parent *testing.T) {
		for name, way := range ways {
			relay := testserver.NewRelay(t, server.Addr) // it outlives the brokers
			parent.Run(name, func(t *testing.T) {
				t.Parallel()
				b, err := rabbitmq.Open(&url.URL{Scheme: "amqp", Host: relay.Addr}, nil)
				if err != nil {
					t.Fatal(err)
				}
				l := startLine(t, b, name)
				l.flows("before")
				if way.cut != nil {
					way.cut(relay)
				}
				if name == "slow" {
					l.flows("over a slow line")
				} else if way.cut != nil {
					l.await("a publish to fail", func() bool { return l.failed > 0 })
				}
				way.heal(relay)
				start := time.Now()
				l.flows("after")
				t.Logf("%v until messages flow again; the longest publish took %v", time.Since(start).Round(time.Millisecond), l.finish())
			})
		}
	})
	for ctx := within(t); ; {
		left := strings.Fields(server.Control(t, "list_connections", "pid"))
		if len(left) <= 1 { // a heading
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("connections that nobody has: %q", left)
		}
	}
}

// publishTime is what a sidecar gives a publish.
const publishTime = 5 * time.Second

// line publishes and receives all the time.
type line struct {
	t          *testing.T
	broker     *rabbitmq.Broker
	topic      string
	stop       context.CancelFunc // publishing
	end        context.CancelFunc // receiving
	publishing sync.WaitGroup
	receiving  sync.WaitGroup

	mu           sync.Mutex
	stored, came map[string]bool
	live         map[string]bool
	failed       int
	longest      time.Duration
}

func startLine(t *testing.T, b *rabbitmq.Broker, topic string) *line {
	t.Helper()
	l := &line{t: t, broker: b, topic: topic, stored: map[string]bool{}, came: map[string]bool{}, live: map[string]bool{}}
	m, err := b.Join(within(t), topic, "q", broker.JoinOptions{Prefetch: 10})
	if err != nil {
		t.Fatal(err)
	}
	note := func(seen map[string]bool, d broker.Delivery) {
		l.mu.Lock()
		defer l.mu.Unlock()
		seen[string(d.Body)] = true
	}
	if _, err := b.Subscribe(within(t), topic, broker.SubscribeOptions{}, func(d broker.Delivery) { note(l.live, d) }); err != nil {
		t.Fatal(err)
	}
	var receiving, publishing context.Context
	receiving, l.end = context.WithCancel(context.Background())
	publishing, l.stop = context.WithCancel(receiving)
	for p := range 3 {
		l.publishing.Go(func() {
			for n := 0; publishing.Err() == nil; n++ {
				l.publish(publishing, fmt.Sprintf("%d/%d", p, n))
			}
		})
	}
	l.receiving.Go(func() {
		for {
			held, err := m.Receive(receiving)
			if err != nil {
				return
			}
			note(l.came, held.Delivery)
			_ = held.Ack(receiving) // else it comes again
		}
	})
	return l
}

// publish publishes once.
func (l *line) publish(ctx context.Context, body string) {
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	start := time.Now()
	err := l.broker.PublishOnce(ctx, l.topic, body, broker.Message{Body: []byte(body)})
	l.mu.Lock()
	l.longest = max(l.longest, time.Since(start))
	if err == nil {
		l.stored[body] = true
	} else {
		l.failed++
	}
	l.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Millisecond):
	}
}

// await waits for a condition, which is asked with l.mu held.
func (l *line) await(what string, ok func() bool) {
	l.t.Helper()
	for ctx := within(l.t); ; {
		l.mu.Lock()
		is := ok()
		l.mu.Unlock()
		if is {
			return
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			l.t.Fatalf("%s: %s does not happen", l.topic, what)
		}
	}
}

// flows returns when messages published from now on have come.
func (l *line) flows(when string) {
	l.t.Helper()
	l.mu.Lock()
	before := maps.Clone(l.stored)
	l.mu.Unlock()
	l.await("messages to flow "+when, func() bool {
		n := 0
		for body := range l.stored {
			if !before[body] && l.came[body] && l.live[body] {
				n++
			}
		}
		return n >= 5
	})
}

// finish ends it when all that was confirmed has come, and returns how long the
// longest publish took.
func (l *line) finish() time.Duration {
	l.t.Helper()
	l.stop()
	l.publishing.Wait()
	l.await("every confirmed message to come", func() bool {
		for body := range l.stored {
			if !l.came[body] {
				return false
			}
		}
		return true
	})
	l.end()
	l.receiving.Wait()
	if err := l.broker.Close(); err != nil {
		l.t.Error(err)
	}
	if l.longest > 2*publishTime { // the machine may be busy
		l.t.Errorf("a publish took %v, want %v", l.longest, publishTime)
	}
	return l.longest.Round(time.Millisecond)
}
