package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// gated is an engine that declares durable queues when it is let: until then it
// takes its time, or is away.
type gated struct {
	*brokermemory.Broker

	mu   sync.Mutex
	gate map[string]chan struct{} // by topic, closed when it is let
	away bool
	over <-chan struct{} // the test is
}

func (g *gated) of(topic string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gate[topic] == nil {
		g.gate[topic] = make(chan struct{})
	}
	return g.gate[topic]
}

func (g *gated) Declare(_ context.Context, topic, _ string, _ broker.QueueOptions) error {
	gate := g.of(topic)
	if !g.away {
		select {
		case <-gate: // not before, whatever the caller's time is
		case <-g.over:
		}
	}
	select {
	case <-gate:
		return nil
	default:
		return errors.New("nobody answers")
	}
}

func (g *gated) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	if err := g.Declare(ctx, topic, queue, o.QueueOptions); err != nil {
		return nil, err
	}
	return silent{}, nil
}

// silent has no messages.
type silent struct{}

func (silent) Receive(ctx context.Context) (*broker.Held, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (silent) Drain(context.Context) error { return nil }
func (silent) Close(context.Context) error { return nil }

// A sidecar is ready, and has taken a new configuration, when the durable queues
// are declared: what is published from then on is kept for them.
func TestReadyWhenQueuesAreDeclared(t *testing.T) {
	for name, away := range map[string]bool{"slow": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, stop := context.WithCancel(t.Context())
			engine := &gated{Broker: brokermemory.New(), gate: map[string]chan struct{}{}, away: away, over: ctx.Done()}
			cfg := testConfig()
			changes := make(chan Change)
			cfg.Control.Changes = changes
			cfg.Subscriptions = []Subscription{{Push: messaging.Push{Topic: "first", Queue: "q", URL: "http://127.0.0.1:1/"}}}
			log := &testserver.Output{}
			ended := make(chan error, 1)
			go func() {
				ended <- Run(ctx, cfg, Drivers{
					Registries: map[string]func(context.Context, Env) (registry.Registry, error){
						"memory": func(context.Context, Env) (registry.Registry, error) { return memory.New(), nil },
					},
					Brokers: map[string]func(context.Context, Env) (broker.Broker, error){
						"memory": func(context.Context, Env) (broker.Broker, error) { return engine, nil },
					},
				}, slog.New(slog.NewTextHandler(log, nil)))
			}()
			defer func() {
				stop()
				if err := <-ended; err != nil {
					t.Errorf("ended with %v", err)
				}
			}()
			r := &running{t: t}
			eventually(t, "it serves", func() bool {
				address := regexp.MustCompile(`address="?([0-9.:]+)`).FindStringSubmatch(log.String())
				if address != nil {
					r.url = "http://" + address[1]
				}
				return address != nil && strings.Contains(log.String(), "msg=serving")
			})
			waiting := func(topic string) bool {
				status, text := r.try(http.MethodGet, "/readyz", "", "")
				return status == 503 && strings.Contains(text, "the durable queue q of topic "+topic+" is not declared yet")
			}
			ready := func() bool {
				status, _ := r.try(http.MethodGet, "/readyz", "", "")
				return status == 200 && strings.Contains(log.String(), "msg=ready")
			}
			if !waiting("first") || strings.Contains(log.String(), "msg=ready") {
				t.Errorf("it does not wait for the queue; the log:\n%s", log)
			}
			close(engine.of("first"))
			eventually(t, "it is ready", ready)

			cfg.Subscriptions = append(cfg.Subscriptions, Subscription{Push: messaging.Push{Topic: "second", Queue: "q", URL: "http://127.0.0.1:1/"}})
			changes <- Change{Config: &cfg}
			eventually(t, "it waits for the new queue", func() bool { return waiting("second") })
			reloaded := func() bool { return strings.Contains(log.String(), "configuration reloaded") }
			if !away && reloaded() {
				t.Error("it has the new configuration before it has the new queue")
			}
			if away {
				eventually(t, "it has the new configuration without an engine", reloaded)
			}
			close(engine.of("second"))
			eventually(t, "it is ready again", func() bool { return ready() && reloaded() })
		})
	}
}
