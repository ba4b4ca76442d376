// Package rpc answers remote procedure calls: POST /[service]/[method] and
// POST /rpc, and makes them for the command line. It owns what such a request
// may look like and its total timeout; which nodes there are, which one is
// taken, how it is called and how errors are written is its collaborators'.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/record"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

// Resolver answers which nodes a service has; an unknown one is
// registry.ErrNotFound.
type Resolver interface {
	Lookup(ctx context.Context, name string) (*discovery.Service, error)
}

// Caller makes calls. Its fields are set before first use and not changed; it
// is safe for concurrent use.
type Caller struct {
	Resolver  Resolver
	Balancer  *balance.Balancer
	Transport *transport.Client
	// Timeout bounds a call in total, all tries and the look-up included.
	Timeout time.Duration
	// Status is what a client is told of an error, for the statistics; it may
	// be nil.
	Status func(error) int
	// AnyAddress allows all calls to an address that no node of the service has.
	AnyAddress bool

	strangers discovery.Budget // of all calls to such addresses
}

// Request is one call.
type Request struct {
	// Service is the full name; Method as in "Say.Hello".
	Service, Method string
	// Key is Balancer.Key of the request that this call came by, 0 for none.
	Key uint64
	// Address is the "host:port" of the only node that may answer; "" leaves
	// the choice to the balancer.
	Address string
	// AnyAddress allows this call to an address that no node of the service has.
	AnyAddress bool
	// ContentType, Header and Body as in transport.Call.
	ContentType string
	Header      httpmsg.Header
	Body        []byte
	// Timeout shortens the caller's when it is positive.
	Timeout time.Duration
	// Account is that of the request that this call came by; it may be nil.
	Account *httpmsg.Account
}

// Call makes the call and returns the result. Errors are *httpmsg.Error for
// what the request asks in vain (404 no such service, 503 no node of it, 403 an
// address that is none of its nodes'), what the resolver gave, and those of
// transport.Client.Call; context.DeadlineExceeded is in them when the call ran
// out of time.
func (c *Caller) Call(ctx context.Context, r Request) ([]byte, error) {
	timeout := c.timeout(r.Timeout)
	limited := within(ctx, timeout)
	defer limited.end()
	ctx = limited
	service, err := c.service(ctx, r)
	if err != nil {
		return nil, err
	}
	call := transport.Call{
		Service: r.Service, Method: r.Method,
		ContentType: r.ContentType, Header: r.Header, Body: r.Body,
		// The first node is told the whole timeout, as the 2017 sidecar did;
		// the next ones what is left of it.
		Timeout: timeout,
	}
	asked := balance.Request{Key: r.Key, Repeatable: balance.Declared(r.Header), Shortened: timeout < c.Timeout}
	var result []byte
	var begun int64        // the first try
	var took time.Duration // from then to the answer
	err = c.Balancer.Do(ctx, service, asked, func(t balance.Try) balance.Result {
		if begun == 0 {
			begun = t.Begun
		}
		r.Account.To(r.Service, t.Node.Addr)
		during := ctx
		if t.Cut {
			cut := within(ctx, t.Limit)
			defer cut.end()
			during = cut
		}
		var err error
		result, err = c.Transport.Call(during, t.Node, call)
		call.Timeout = 0
		now := discovery.Now()
		took = time.Duration(now - begun)
		record.Try(t.Node, stats.RPC, http.StatusOK, err, time.Duration(now-t.Begun))
		outcome := balance.Judge(ctx, err)
		// How soon a node fails is no praise.
		outcome.Timed = outcome.Timed || outcome.Fate == balance.Answered
		return outcome
	})
	c.record(service, err, took)
	if err != nil {
		return nil, err
	}
	return result, nil
}

// record notes what became of a call, for the statistics.
func (c *Caller) record(s *discovery.Service, err error, took time.Duration) {
	status := http.StatusOK
	switch {
	case err == nil:
	case c.Status == nil:
		status = 0
	default:
		status = c.Status(err)
	}
	record.Request(s, stats.RPC, status, err, took)
}

// timeout returns the caller's timeout, or the request's when that is shorter.
func (c *Caller) timeout(asked time.Duration) time.Duration {
	if asked > 0 && asked < c.Timeout {
		return asked
	}
	return c.Timeout
}

// service returns the nodes that may be called.
func (c *Caller) service(ctx context.Context, r Request) (*discovery.Service, error) {
	if r.Address != "" {
		return c.at(ctx, r)
	}
	return c.lookup(ctx, r.Service)
}

func (c *Caller) lookup(ctx context.Context, name string) (*discovery.Service, error) {
	s, err := c.Resolver.Lookup(ctx, name)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil, &httpmsg.Error{Status: http.StatusNotFound, Detail: "service " + name + " not found", Err: err}
	case err != nil:
		return nil, fmt.Errorf("look up service %s: %w", name, err)
	}
	return s, nil
}

// at returns the one node at the request's address: the registered one, whose
// metadata says how it is called, else one of which nothing is known.
func (c *Caller) at(ctx context.Context, r Request) (*discovery.Service, error) {
	address, ok := parseNode(r.Address)
	if !ok {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "address %q is not of the form host:port or unix:/path", r.Address)
	}
	addr := address.HostPort()
	s, err := c.lookup(ctx, r.Service)
	if s != nil {
		for _, n := range s.Nodes {
			if n.Addr == addr {
				return alone(s.Name, n, s.Budget), nil
			}
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, err // there is no time left to do without
	case c.AnyAddress || r.AnyAddress:
		// The address is all that is needed: an engine that is away, or does
		// not know the service, does not stand in the way.
		address.ID = addr
		return alone(r.Service, discovery.NewNode(address, ""), &c.strangers), nil
	case err != nil:
		return nil, err
	}
	return nil, httpmsg.Errorf(http.StatusForbidden, "address %s is not a registered node of service %s, and no other may be called (--rpc_any_address)", r.Address, r.Service)
}

// alone is a service of one node.
func alone(name string, n *discovery.Node, budget *discovery.Budget) *discovery.Service {
	s := discovery.NewService(name, []*discovery.Node{n})
	s.Budget = budget
	return s
}

// parseNode reads the address of a node.
func parseNode(address string) (n registry.Node, ok bool) {
	if strings.HasPrefix(address, registry.UnixPrefix) {
		return registry.Node{Address: address}, registry.CheckUnix(address) == nil
	}
	host, port, err := net.SplitHostPort(address)
	number, perr := strconv.ParseUint(port, 10, 16)
	return registry.Node{Address: host, Port: int(number)}, err == nil && perr == nil && host != "" && number != 0
}
