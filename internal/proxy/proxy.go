// Package proxy passes requests on to the nodes of a service as they came. It
// owns what a proxy changes in a message (hop-by-hop fields, X-Forwarded-*)
// and how bodies, trailers and upgraded connections stream through; routing,
// discovery, balancing and the calling of nodes are its collaborators'.
package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/record"
	"github.com/micro/sidecar/internal/route"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

// Resolver answers which nodes a service has.
type Resolver interface {
	Lookup(ctx context.Context, name string) (*discovery.Service, error)
}

// Handler is the proxy. Its fields are set before first use and not changed.
type Handler struct {
	Namespace string
	Resolver  Resolver
	Balancer  *balance.Balancer
	Transport *transport.Client
	// Timeout bounds the wait for the begin of an answer, all tries included; with
	// a body that streams, the wait for a node to take the next piece of it and,
	// after the last, to begin its answer. 0 means no bound. What streams after
	// that may take forever.
	Timeout time.Duration
	// Status is what a client is told of an error, for the statistics; it may
	// be nil.
	Status func(error) int
}

// Serve passes r on and streams the answer back.
func (h *Handler) Serve(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	name, ok := route.Proxy(h.Namespace, r.Path())
	if !ok {
		return httpmsg.Errorf(404, "the path names no service: /[service]/… was expected")
	}
	service, err := h.Resolver.Lookup(ctx, name)
	if errors.Is(err, registry.ErrNotFound) {
		return &httpmsg.Error{Status: 404, Detail: "service " + name + " not found", Err: err}
	}
	if err != nil {
		return err
	}
	err = h.forward(ctx, service, r, w)
	if err != nil && !errors.Is(err, httpmsg.ErrAborted) { // else it is counted when its answer begins
		status := 0
		if h.Status != nil {
			status = h.Status(err)
		}
		record.Request(service, stats.Proxy, status, err, 0)
	}
	return err
}

// maxReplay is the size in bytes of the bodies that are kept to be sent again.
const maxReplay = 64 << 10

// forward passes r on to one of the nodes of service.
func (h *Handler) forward(ctx context.Context, service *discovery.Service, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	repeatable := balance.Idempotent(r.Method) || balance.Declared(r.Header)
	small := 0 <= r.Length && r.Length <= maxReplay && !r.Header.Has("Expect")
	if !transport.WithHead(r) && !(repeatable && small) {
		return h.stream(ctx, service, r, w)
	}
	p := passages.Get().(*passage)
	p.begin(h, r, w)
	timeout := h.patienceWith(r)
	p.asked.Repeatable, p.asked.Timeout, p.asked.Shortened = repeatable, timeout, timeout == 0
	if repeatable && r.Length > 0 {
		if err := p.keep(); err != nil {
			p.end()
			return err
		}
	}
	ends := transport.WithHead(&p.out)
	err := p.run(ctx, service)
	if ends {
		p.end() // nobody reads a body any more that was sent with the head
	}
	return err
}

// stream is forward for a request whose body may be read after the answer.
// Once that has begun it cannot be sent again.
func (h *Handler) stream(ctx context.Context, service *discovery.Service, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	// The request's own context ends when the client goes away; ours also when
	// the node takes too long to go on.
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	timeout := h.patienceWith(r)
	if try := h.Balancer.TryTimeout; timeout > 0 && try > 0 {
		timeout = min(timeout, try)
	}
	patience := &patience{timeout: timeout, expire: func() { cancel(errTimeout) }}
	defer patience.stop()
	p := newPassage()
	p.begin(h, r, w)
	p.asked.Shortened = timeout == 0
	p.headed = patience.stop
	p.out.Body = patience.watch(r)
	err := p.run(ctx, service)
	switch {
	case err == nil, errors.Is(err, httpmsg.ErrAborted), parent.Err() != nil:
		return err
	case errors.Is(context.Cause(ctx), errTimeout):
		return errTimeout
	}
	var failed *transport.NodeError
	if broken := patience.failure(); broken != nil && !errors.As(err, &failed) {
		return httpmsg.BodyError(broken)
	}
	return err
}

// patienceWith is how long the node may keep the client waiting. A gRPC call
// has a deadline of its own, and a stream may begin its answer whenever it
// likes.
func (h *Handler) patienceWith(r *httpmsg.Request) time.Duration {
	if r.Header.HasPrefix("Content-Type", "application/grpc") {
		return 0
	}
	return h.Timeout
}
