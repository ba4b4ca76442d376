// Package proxy passes requests on to the nodes of a service as they came. It
// owns what a proxy changes in a message (hop-by-hop fields, X-Forwarded-*)
// and how bodies, trailers and upgraded connections stream through; routing,
// discovery, balancing and the calling of nodes are its collaborators'.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/route"
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
	// Timeout bounds the wait for a node to take the next piece of a request's
	// body and, after the last, to begin its answer; 0 means no bound. What
	// streams after that may take forever.
	Timeout time.Duration
}

// errTimeout ends a request whose node did not begin to answer in time.
var errTimeout = &timeoutError{}

type timeoutError struct{}

func (*timeoutError) Error() string   { return "the node did not answer in time" }
func (*timeoutError) Is(e error) bool { return e == context.DeadlineExceeded }

// Serve passes r on and streams the answer back.
func (h *Handler) Serve(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	name, ok := route.Proxy(h.Namespace, r.Path())
	if !ok {
		return httpmsg.Errorf(404, "the path names no service: /[service]/… was expected")
	}
	service, err := h.Resolver.Lookup(ctx, name)
	if errors.Is(err, registry.ErrNotFound) {
		return httpmsg.Errorf(404, "service %s not found", name)
	}
	if err != nil {
		return err
	}
	return h.forward(ctx, service, r, w)
}

// forward passes r on to one of the nodes of service.
func (h *Handler) forward(ctx context.Context, service *discovery.Service, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	// The request's own context ends when the client goes away; ours also when
	// the node takes too long to begin its answer.
	parent := ctx
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	out := outgoing(r)
	patience := &patience{timeout: h.Timeout, expire: func() { cancel(errTimeout) }}
	defer patience.stop()
	out.Body = patience.watch(r)
	ctx = transport.WithInformational(ctx, func(status int, header httpmsg.Header) {
		_ = w.Informational(status, answered(header)) // a client that is gone is noticed with the real answer
	})

	var resp *httpmsg.Response
	err := h.Balancer.Do(ctx, service, func(n *discovery.Node) (time.Duration, error) {
		begun := time.Now()
		var err error
		if resp, err = h.Transport.Do(ctx, n.Peer, out); err != nil {
			return 0, err
		}
		return time.Since(begun), refuse(r, n.Addr, resp)
	})
	patience.stop()
	switch {
	case err == nil && resp.Conn != nil:
		return tunnel(ctx, resp, w)
	case err == nil:
		return answer(resp, w)
	case parent.Err() != nil:
		return err
	case errors.Is(context.Cause(ctx), errTimeout):
		return errTimeout
	}
	var node *transport.NodeError
	if broken := patience.failure(); broken != nil && !errors.As(err, &node) {
		return httpmsg.Errorf(http.StatusBadRequest, "the request's body could not be read: %v", broken)
	}
	return err
}

// refuse closes an answer that cannot be passed on and says why.
func refuse(r *httpmsg.Request, addr string, resp *httpmsg.Response) error {
	var what string
	switch {
	case resp.Conn != nil && offered(r) == "":
		what = "switched protocols without being asked"
		_ = resp.Conn.Close() // nothing more is wanted of it
	case resp.Conn == nil && resp.Status < http.StatusOK:
		what = fmt.Sprintf("answered with status %d, which is none", resp.Status)
		_ = resp.Body.Close()
	default:
		return nil
	}
	return &transport.NodeError{Addr: addr, Sent: true, Err: errors.New(what)}
}
