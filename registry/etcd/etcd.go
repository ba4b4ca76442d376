// Package etcd is the registry driver for etcd, version 3.4 or later. It owns
// how services are written to and read from its keys, in the layout of
// go-micro's etcd registry, so that either finds the other's services. It does
// not own when to register, renew or re-read.
//
// A node is one key, /micro/registry/<service>/<node id>, on a lease of its
// time to live. etcd keeps a lease by its own clock and for whole seconds, not
// for less than some two; after a change of its leader it may keep one for
// longer, never for less.
package etcd

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/registry"
)

// patience bounds a call whose context has no deadline.
const patience = 10 * time.Second

// Registry talks to one etcd cluster. It is safe for concurrent use.
type Registry struct {
	client  *clientv3.Client
	failure *failure
	prefix  string // with a slash at its end
	log     *slog.Logger
	odd     *complain.Log
	// minTTL is the shortest lease in seconds that the cluster was seen to
	// grant: a node that asks for less is renewed as one that has that much.
	minTTL atomic.Int64
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ registry.Pinger   = (*Registry)(nil)
)

// Open returns a registry on the cluster at u: etcd://host:port,…, or an http
// or https URL, with the parameters prefix and those of [engineurl.TLS]; user
// and password stand before the hosts, or in ETCD_USERNAME and ETCD_PASSWORD,
// as with go-micro. nil is 127.0.0.1:2379. Nothing is sent yet: the cluster
// may come later.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	c, err := configure(u)
	if err != nil {
		return nil, fmt.Errorf("open etcd registry: %w", err)
	}
	failure := &failure{}
	client, err := c.client(failure)
	if err != nil {
		return nil, fmt.Errorf("open etcd registry: %w", err)
	}
	return &Registry{client: client, failure: failure, prefix: c.prefix, log: log, odd: complain.New(log)}, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, err := configure(u)
	return err
}

// Close ends the connections.
func (r *Registry) Close() error { return r.client.Close() }

// Ping reports whether a member answers and the cluster has a leader, without
// whom nothing is read or written.
func (r *Registry) Ping(ctx context.Context) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if _, err := r.client.Get(ctx, r.prefix, clientv3.WithKeysOnly()); err != nil {
		return fmt.Errorf("ask etcd at %s: %w", strings.Join(r.client.Endpoints(), " "), r.failure.explain(ctx, err))
	}
	return nil
}

// bounded gives a context a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, patience)
}
