// Package consul is the registry driver for HashiCorp Consul. It owns how
// services are written to and read from an agent, in the form that go-micro
// uses, so that either finds the other's services. It does not own when to
// register, renew or re-read.
//
// Consul holds almost any name and id, but compares ids without regard to
// case, keeps one id once an agent, and its HTTP API cannot address all of
// them: see names.go. A node can be removed only through the agent it was
// registered with; for any other agent it is not there.
package consul

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/hashicorp/consul/api"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/registry"
)

// Registry talks to one Consul agent. It is safe for concurrent use.
type Registry struct {
	client    *api.Client
	transport *http.Transport
	pulse     *pulse
	address   string
	log       *slog.Logger
	odd       *complain.Log
	// writing holds a token while a registration is compared with what the
	// agent has and written: two of one id must not both find it free.
	writing chan struct{}
	// watches holds a token for each query that watches one service.
	watches chan struct{}
	shared  *shared // the watch of all services
}

var (
	_ registry.Registry    = (*Registry)(nil)
	_ registry.NameWatcher = (*Registry)(nil)
	_ registry.Pinger      = (*Registry)(nil)
)

// Open returns a registry on the agent at u: consul://host:port or an http or
// https URL, with the parameters token, token_file, datacenter (or dc),
// namespace, partition, those of [engineurl.TLS] and (for consul://)
// scheme=http|https. It is one agent, not a list: an agent
// runs on every machine of a Consul cluster and finds the servers itself.
// What u does not say comes from Consul's environment variables, with u nil
// the address too. Nothing is sent yet: the agent may come later.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	config, secure, err := configure(u)
	if err != nil {
		return nil, fmt.Errorf("open consul registry: %w", err)
	}
	transport := newTransport()
	config.HttpClient, err = api.NewHttpClient(transport, config.TLSConfig)
	if err != nil {
		return nil, fmt.Errorf("open consul registry: %w", err)
	}
	if secure != nil {
		transport.TLSClientConfig = secure
	}
	pulse := &pulse{next: transport}
	config.HttpClient.Transport = limited{next: pulse, limit: maxAnswer}
	address := config.Address // NewClient takes the scheme off
	client, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("open consul registry: %w", err)
	}
	r := &Registry{
		client: client, transport: transport, pulse: pulse, address: address, log: log, odd: complain.New(log),
		writing: make(chan struct{}, 1), watches: make(chan struct{}, maxWatches),
	}
	r.shared = &shared{registry: r, listeners: map[*listener]struct{}{}}
	return r, nil
}

// Close drops idle connections. Calls in progress end by their contexts.
func (r *Registry) Close() error {
	r.transport.CloseIdleConnections()
	return nil
}

// Ping reports whether the agent answers and its servers have a leader,
// without whom nothing is read or written.
func (r *Registry) Ping(ctx context.Context) error {
	leader, err := r.client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return fmt.Errorf("ask consul at %s: %w", r.address, err)
	}
	if leader == "" {
		return fmt.Errorf("consul at %s has no leader", r.address)
	}
	return nil
}

// query returns the options of a request that answers at once.
func query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{}).WithContext(ctx)
}

// refused reports whether the agent answered with an error, as opposed to not
// being reached. It does so for a check or a service that it does not know.
func refused(err error) bool {
	_, answered := statusOf(err)
	return answered
}
