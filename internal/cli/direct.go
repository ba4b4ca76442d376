package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

// closeTimeout bounds how long the engines may take to let go.
const closeTimeout = 5 * time.Second

// direct is a client that talks to the engines itself.
type direct struct {
	engines *sidecar.Connection
	find    *discovery.Discovery
	calls   *caller
}

// openDirect connects to the engines. They are joined, never hosted: a command
// ends too soon for others to rely on.
func openDirect(ctx context.Context, i *invocation, messaging bool) (*direct, error) {
	e := i.cfg.Sidecar.Engines
	e.Host = false
	e.DataDir = i.dataDir()
	if !messaging {
		e.Broker = sidecar.NoBroker
	}
	// The default choice may take half a second before the engine is asked.
	ctx, cancel := context.WithTimeout(ctx, i.cfg.Sidecar.RequestTimeout+connectMargin)
	defer cancel()
	log := i.logger(nil)
	engines, err := sidecar.Connect(ctx, e, i.drivers, log)
	if errors.Is(err, engine.ErrNoHost) {
		return nil, fmt.Errorf("%w; start one, or name one with --proxy_address=HOST:PORT", err)
	}
	if err != nil {
		return nil, err
	}
	find := discovery.New(engines.Registry, log)
	calls, err := newCaller(&i.cfg.Sidecar, i.drivers, find)
	if err != nil { // the settings were checked: this is a fault of ours
		find.Close()
		return nil, errors.Join(err, engines.Close(ctx))
	}
	return &direct{engines, find, calls}, nil
}

// Close lets go of the engines.
func (d *direct) Close() error {
	d.calls.close()
	d.find.Close()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := d.engines.Close(ctx); err != nil {
		return fmt.Errorf("close the engines: %w", err)
	}
	return nil
}

// List asks the registry for the services' names.
func (d *direct) List(ctx context.Context) ([]string, error) {
	return d.engines.Registry.List(ctx)
}

// Get asks the registry for the versions of a service.
func (d *direct) Get(ctx context.Context, name string) ([]registry.Service, error) {
	versions, err := d.engines.Registry.Get(ctx, name)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, fmt.Errorf("service %s not found", name)
	}
	return versions, err
}

// Register registers the service's nodes, where that outlives the command.
func (d *direct) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if _, ok := d.engines.Registry.(registry.Fleeting); ok {
		return fmt.Errorf("a registration in %s ends with the process that made it: register through a sidecar, with --proxy_address", d.engines.RegistryName)
	}
	return d.engines.Registry.Register(ctx, s, ttl)
}

// Deregister removes the service's nodes.
func (d *direct) Deregister(ctx context.Context, s registry.Service) error {
	return d.engines.Registry.Deregister(ctx, s)
}

// Watch reports the registry's changes. It waits for a registry that goes away
// later, not for one that is not there: nobody would know what it waits for.
func (d *direct) Watch(ctx context.Context, live func(), emit func(discovery.Change) error) error {
	if err := d.engines.Ping(ctx); err != nil {
		return err
	}
	return d.find.Watch(ctx, "", live, emit)
}

// Call makes an RPC to a node of the service, or to the one node asked for.
func (d *direct) Call(ctx context.Context, c call) (json.RawMessage, error) {
	return d.calls.call(ctx, c)
}

// Publish gives the message to the broker.
func (d *direct) Publish(ctx context.Context, topic string, m broker.Message, o publishing) error {
	if o.id != "" {
		m.Header = withField(m.Header, "Micro-Id", o.id)
	}
	return messaging.Publish(ctx, d.engines.Broker, topic, m, messaging.PublishOptions{ID: o.id, Delay: o.delay})
}

// Subscribe passes on what the broker delivers. A broker survives an engine
// that goes away and comes back, so only ctx and emit end it.
func (d *direct) Subscribe(ctx context.Context, s subscription, live func(), emit func(received) error) (err error) {
	if s.ack {
		return d.subscribeDurable(ctx, s, live, emit)
	}
	failed := make(chan error, 1)
	sub, err := d.engines.Broker.Subscribe(ctx, s.topic, broker.SubscribeOptions{Queue: s.queue},
		func(m broker.Delivery) {
			if err := emit(receivedFrom(s.topic, m)); err != nil {
				select {
				case failed <- err:
				default: // the first one ends the command
				}
			}
		})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	live()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}
