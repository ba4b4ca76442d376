package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/monitor"
)

// engineStates is what the last pings found. The zero value knows nothing.
type engineStates struct {
	mu   sync.Mutex
	last map[string]monitor.Engine // by kind
}

func (e *engineStates) note(kind, name string, err error) {
	state := monitor.Engine{Kind: kind, Name: name, Up: err == nil, At: time.Now()}
	if err != nil {
		state.Err = err.Error()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last == nil {
		e.last = map[string]monitor.Engine{}
	}
	e.last[kind] = state
}

// States tells which engines answered when they were last asked.
func (c *Connection) States() []monitor.Engine {
	c.states.mu.Lock()
	defer c.states.mu.Unlock()
	var all []monitor.Engine
	for _, kind := range []string{"registry", "broker"} {
		if state, ok := c.states.last[kind]; ok {
			all = append(all, state)
		}
	}
	return all
}

// registryDown reports whether the registry did not answer when it was last asked.
func (c *Connection) registryDown() bool {
	c.states.mu.Lock()
	defer c.states.mu.Unlock()
	state, asked := c.states.last["registry"]
	return asked && !state.Up
}

// Ping says which engine cannot be reached, or nil.
func (c *Connection) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var asking sync.WaitGroup
	var found, messages error
	asking.Go(func() { found = c.ping(ctx, "registry", c.RegistryName, c.Registry) })
	if c.Broker != nil {
		messages = c.ping(ctx, "broker", c.BrokerName, c.Broker)
	}
	asking.Wait()
	return cmp.Or(found, messages)
}

// ping asks one engine, if it can be asked.
func (c *Connection) ping(ctx context.Context, kind, name string, engine any) error {
	var err error
	if p, ok := engine.(interface{ Ping(context.Context) error }); ok { // as registry.Pinger and broker.Pinger
		err = p.Ping(ctx)
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // who asked did not wait: that says nothing about the engine
	}
	c.states.note(kind, name, err)
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, name, err)
	}
	return nil
}
