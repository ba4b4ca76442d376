// Package proxy passes requests on to the nodes of a service as they came. It
// owns what a proxy changes in a message (hop-by-hop fields, X-Forwarded-*)
// and how bodies, trailers and upgraded connections stream through; routing,
// discovery, balancing and the calling of nodes are its collaborators'.
package proxy

import (
	"context"
	"errors"
	"io"
	"sync"
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
	// Timeout bounds the wait for a node's answer to begin, counted from the
	// end of the request's body. What streams after that may take forever.
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
		resp, err = h.Transport.Do(ctx, n.Addr, out)
		if err != nil {
			return 0, err
		}
		return time.Since(begun), nil
	})
	patience.stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), context.DeadlineExceeded) && parent.Err() == nil {
			return errTimeout
		}
		return err
	}
	if resp.Conn != nil {
		return tunnel(ctx, resp, w)
	}
	return answer(resp, w)
}

// answer streams a node's answer to the client.
func answer(resp *httpmsg.Response, w httpmsg.ResponseWriter) error {
	defer resp.Body.Close()
	if err := w.Head(resp.Status, answered(resp.Header), resp.Length); err != nil {
		return httpmsg.ErrAborted
	}
	if err := copyBody(w, resp.Body); err != nil {
		return httpmsg.ErrAborted
	}
	if resp.Trailer == nil {
		return nil
	}
	if t := resp.Trailer(); len(t) > 0 {
		if err := w.Trailer(t); err != nil {
			return httpmsg.ErrAborted
		}
	}
	return nil
}

// buffers hold pieces of bodies on their way through.
var buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// copyBody copies src to the client piece by piece as the pieces come: an
// event must not wait for the next one.
func copyBody(w httpmsg.ResponseWriter, src io.Reader) error {
	buf := buffers.Get().(*[32 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return werr
			}
			if err == nil {
				if werr := w.Flush(); werr != nil {
					return werr
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
