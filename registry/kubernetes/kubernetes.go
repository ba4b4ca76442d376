// Package kubernetes is the registry driver for Kubernetes: the Services of a
// namespace, or of all, with their endpoints that are ready. It owns the
// listing and watching of the API server and how its objects become services.
// Nothing can be registered: pods are, by Kubernetes itself.
//
// It speaks to the API over HTTP with a few types of its own. client-go does
// the same, and would make micro half as large again.
package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/registry"
)

// Registry follows one API server. It is safe for concurrent use.
type Registry struct {
	*picture.Picture // Get, List and Watch
	client           *client
	stop             context.CancelFunc
	tasks            sync.WaitGroup

	mu    sync.Mutex
	state [2]error // of the two watches
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ registry.Pinger   = (*Registry)(nil)
	_ io.Closer         = (*Registry)(nil)
)

var errConnecting = errors.New("the API server has not answered yet")

// Open follows the API server at u:
//
//   - nil or kubernetes://in-cluster, in a pod: as its service account
//   - kubernetes://HOST:PORT, or an http or https URL, with the parameter
//     token_file and those of [engineurl.TLS]
//   - kubernetes:///PATH of a kubeconfig file, with the parameter context
//
// and in each the parameter namespace, which may be * for all; the default is
// the pod's, or the context's, or "default". It does not wait for an answer.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	c, err := configure(u)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{Picture: picture.New(), client: newClient(c), stop: stop, state: [2]error{errConnecting, errConnecting}}
	m := newModel(r.Picture, c.namespace == "")
	in := ""
	if c.namespace != "" {
		in = "/namespaces/" + c.namespace
	}
	services := kind[*service]{
		client: r.client, path: "/api/v1" + in + "/services", log: log,
		replace: m.replaceServices, set: m.setService, state: func(err error) { r.note(0, err) },
	}
	slices := kind[*endpointSlice]{
		client: r.client, path: "/apis/discovery.k8s.io/v1" + in + "/endpointslices", log: log,
		replace: m.replaceSlices, set: m.setSlice, state: func(err error) { r.note(1, err) },
	}
	r.tasks.Go(func() { services.run(ctx) })
	r.tasks.Go(func() { slices.run(ctx) })
	return r, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, err := configure(u)
	return err
}

func (r *Registry) note(i int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state[i] = err
	if err != nil {
		r.Fail(err)
	}
}

// Close ends the watches.
func (r *Registry) Close() error {
	r.stop()
	r.tasks.Wait()
	r.client.close()
	return nil
}

// Ping reports whether both kinds of objects are watched now.
func (r *Registry) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.state[0], r.state[1])
}

// Register is refused with [registry.ErrReadOnly].
func (r *Registry) Register(ctx context.Context, s registry.Service, _ time.Duration) error {
	return refuse(ctx, "register", s.Name)
}

// Deregister is refused with [registry.ErrReadOnly].
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	return refuse(ctx, "deregister", s.Name)
}

func refuse(ctx context.Context, what, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%s %s: %w: services are Kubernetes's own", what, name, registry.ErrReadOnly)
}
