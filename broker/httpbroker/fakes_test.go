package httpbroker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/micro/sidecar/registry"
)

// counting is a registry that counts, holds up and fails calls.
type counting struct {
	registry.Registry
	hold chan struct{} // Get waits for it to be closed; nil: it does not

	mu        sync.Mutex
	gets      int
	registers int
	failing   bool
}

var errAway = errors.New("the registry is away")

func (c *counting) Get(ctx context.Context, name string) ([]registry.Service, error) {
	c.mu.Lock()
	c.gets++
	failing := c.failing
	c.mu.Unlock()
	if c.hold != nil {
		select {
		case <-c.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if failing {
		return nil, errAway
	}
	return c.Registry.Get(ctx, name)
}

func (c *counting) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	c.mu.Lock()
	c.registers++
	failing := c.failing
	c.mu.Unlock()
	if failing {
		return errAway
	}
	return c.Registry.Register(ctx, s, ttl)
}

func (c *counting) fail(failing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = failing
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets
}

func (c *counting) registered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registers
}
