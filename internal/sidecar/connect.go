package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/merged"
)

// consulPatience is how long a Consul agent may take to answer before the
// default choice falls on the embedded engine.
const consulPatience = 500 * time.Millisecond

// NoBroker as Engines.Broker opens a registry alone.
const NoBroker = "none"

// Connection holds the engines that were opened.
type Connection struct {
	Registry     registry.Registry
	RegistryName string
	Broker       broker.Broker // nil with NoBroker
	BrokerName   string
	// Why is a sentence about how the registry came to be chosen.
	Why string
	// Defaulted: nobody named a registry and no Consul agent answered.
	Defaulted bool

	engine lazyEngine
	states engineStates
}

// Connect opens the engines that e names, or those of the default choice.
func Connect(ctx context.Context, e Engines, d Drivers, log *slog.Logger) (*Connection, error) {
	c := &Connection{RegistryName: e.Registry, BrokerName: e.Broker, Why: "it was asked for"}
	c.engine.options = engine.Options{DataDir: e.DataDir, Listen: e.EngineAddress, CanHost: e.Host, Sync: e.Sync, Log: log}
	if err := c.openRegistry(ctx, e, d, log); err != nil {
		return nil, errors.Join(fmt.Errorf("registry %s: %w", c.RegistryName, err), c.Close(ctx))
	}
	if err := c.openBroker(ctx, e, d, log); err != nil {
		return nil, errors.Join(fmt.Errorf("broker %s: %w", c.BrokerName, err), c.Close(ctx))
	}
	return c, nil
}

// openRegistry opens what was named, or chooses.
func (c *Connection) openRegistry(ctx context.Context, e Engines, d Drivers, log *slog.Logger) error {
	if c.RegistryName == "" {
		if reg := probeConsul(ctx, d, log); reg != nil {
			c.Registry, c.RegistryName = reg, "consul"
			c.Why = "a Consul agent answers at " + consulAddress()
			return nil
		}
		c.RegistryName, c.Defaulted = "embedded", true
		c.Why = "no Consul agent answers at " + consulAddress()
	}
	var err error
	c.Registry, err = c.openNamed(ctx, e, d, log)
	return err
}

// openNamed opens the registry of that name, or several merged into one.
func (c *Connection) openNamed(ctx context.Context, e Engines, d Drivers, log *slog.Logger) (registry.Registry, error) {
	names := strings.Split(c.RegistryName, ",")
	addresses, err := engineurl.Pair(names, e.RegistryAddress)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	var members []merged.Member
	fail := func(name string, err error) (registry.Registry, error) {
		for _, m := range members {
			closeIf(m.Registry)
		}
		if len(names) > 1 {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return nil, err
	}
	for i, name := range names {
		address, err := parseAddress(name, addresses[i])
		if err != nil {
			return fail(name, err)
		}
		open, ok := d.Registries[name]
		if !ok {
			return fail(name, errors.New("not in this build"))
		}
		e.opening("registry " + name)
		env := Env{Address: address, Engine: c.engine.get, MaxBodySize: e.MaxBodySize, Log: log}
		begin := func(ctx context.Context) (registry.Registry, error) { return open(ctx, env) }
		var reg registry.Registry
		if len(names) == 1 {
			reg, err = begin(ctx)
		} else {
			reg, err = openLate(ctx, begin, log.With("registry", name))
		}
		if err != nil {
			return fail(name, err)
		}
		members = append(members, merged.Member{Name: name, Registry: reg})
	}
	if len(members) == 1 {
		return members[0].Registry, nil
	}
	return merged.New(log, members...), nil
}

// registryAddress returns the address of the registry of that name, "" if
// there is none.
func (c *Connection) registryAddress(name string, e Engines) string {
	names := strings.Split(c.RegistryName, ",")
	addresses, err := engineurl.Pair(names, e.RegistryAddress)
	i := slices.Index(names, name)
	if err != nil || i < 0 {
		return ""
	}
	return addresses[i]
}

// openBroker opens the broker that was named, or the one that goes with the
// registry: the engine's own, else go-micro's http broker.
func (c *Connection) openBroker(ctx context.Context, e Engines, d Drivers, log *slog.Logger) error {
	switch c.BrokerName {
	case NoBroker:
		return nil
	case "":
		c.BrokerName = "http"
		if first, _, _ := strings.Cut(c.RegistryName, ","); first == "embedded" || first == "nats" {
			c.BrokerName = first
		}
	}
	if c.BrokerName == "nats" && e.BrokerAddress == "" {
		e.BrokerAddress = c.registryAddress(c.BrokerName, e) // the same server
	}
	address, err := parseAddress(c.BrokerName, e.BrokerAddress)
	if err != nil {
		return err
	}
	open, ok := d.Brokers[c.BrokerName]
	if !ok {
		return errors.New("not in this build")
	}
	e.opening("broker " + c.BrokerName)
	c.Broker, err = open(ctx, Env{Address: address, Engine: c.engine.get, Registry: c.Registry, MaxBodySize: e.MaxBodySize, MaxBytes: e.MaxBytes, Log: log})
	return err
}

// Close frees the engines; an embedded one that is hosted here is handed over.
func (c *Connection) Close(ctx context.Context) error {
	var errs []error
	if c.Broker != nil {
		errs = append(errs, c.Broker.Close())
	}
	if closer, ok := c.Registry.(io.Closer); ok {
		errs = append(errs, closer.Close())
	}
	return errors.Join(append(errs, c.engine.close(ctx))...)
}

// lazyEngine opens the embedded engine when the first driver asks for it.
type lazyEngine struct {
	options engine.Options
	mu      sync.Mutex
	open    *engine.Engine
}

func (l *lazyEngine) get(ctx context.Context) (*engine.Engine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open != nil {
		return l.open, nil
	}
	e, err := engine.Open(ctx, l.options)
	if err != nil {
		return nil, err
	}
	l.open = e
	return e, nil
}

func (l *lazyEngine) close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		return nil
	}
	return l.open.Close(ctx)
}

// parseAddress makes a URL of what --registry_address or --broker_address say,
// nil for nothing.
func parseAddress(name, text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	u, err := engineurl.Parse(name, text)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	return u, nil
}

// probeConsul returns a registry on the Consul agent of this machine, or nil
// when none answers in time.
func probeConsul(ctx context.Context, d Drivers, log *slog.Logger) registry.Registry {
	open, ok := d.Registries["consul"]
	if !ok {
		return nil
	}
	reg, err := open(ctx, Env{Log: log})
	if err != nil {
		log.Warn("Consul's settings in the environment are not usable", "error", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, consulPatience)
	defer cancel()
	if p, ok := reg.(registry.Pinger); ok && p.Ping(ctx) == nil {
		return reg
	}
	closeIf(reg)
	return nil
}

// closeIf closes a registry that is not used after all.
func closeIf(reg registry.Registry) {
	if closer, ok := reg.(io.Closer); ok {
		_ = closer.Close() // nothing was written through it
	}
}

func consulAddress() string {
	return cmp.Or(os.Getenv("CONSUL_HTTP_ADDR"), "127.0.0.1:8500")
}
