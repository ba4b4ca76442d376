package cli

import (
	"context"
	"encoding/json"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/rpc"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/internal/transport"
)

// caller makes the RPCs of commands that talk to nodes themselves.
type caller struct {
	transport *transport.Client
	rpc       *rpc.Caller
}

// newCaller makes a caller as the sidecar makes its own, but that a command
// may call any address: it has nobody's rights but its user's.
func newCaller(c *sidecar.Config, d sidecar.Drivers, find *discovery.Discovery) (*caller, error) {
	balancer, err := d.Balancer(c.Selector)
	if err != nil {
		return nil, err
	}
	balancer.Retries, balancer.TryTimeout = c.Retries, c.TryTimeout
	client := transport.New(transport.Options{PoolSize: c.PoolSize, DialTimeout: c.ConnectTimeout, MaxBody: c.MaxBodySize})
	return &caller{client, &rpc.Caller{
		Resolver:   find,
		Balancer:   balancer,
		Transport:  client,
		Timeout:    c.RequestTimeout,
		AnyAddress: true,
	}}, nil
}

// close closes the connections to the nodes.
func (c *caller) close() { c.transport.Close() }

// call makes one RPC.
func (c *caller) call(ctx context.Context, what call) (json.RawMessage, error) {
	return c.rpc.Call(ctx, rpc.Request{
		Service: what.service, Method: what.method, Address: what.address,
		ContentType: transport.JSON, Body: what.request, Timeout: what.timeout,
	})
}
