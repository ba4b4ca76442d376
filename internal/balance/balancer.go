package balance

import (
	"context"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// Balancer sends a request to a node, and to another one when that is safe. It
// is immutable and safe for concurrent use.
type Balancer struct {
	Pick Picker
	// Retries is how many further nodes are tried after the first; nodes that
	// the request did not reach do not count, but with 0 none is tried at all.
	Retries int
	// Safe reports that a failed try reached no node, so that another one may
	// have the request.
	Safe func(error) bool

	key func(*httpmsg.Request) uint64 // nil when Pick needs none
}

// maxTries bounds the nodes that one request may be tried on.
const maxTries = 16

// Key returns what Do wants to know of a request, 0 when the selector is not
// hash.
func (b *Balancer) Key(r *httpmsg.Request) uint64 {
	if b.key == nil {
		return 0
	}
	return b.key(r)
}

// Do calls try with a node of s. When it fails and that was safe, another node
// is tried, until one answers, none is left or ctx ends. key is [Balancer.Key]
// of the request, 0 when there is none. try is told the node and returns how
// long the node took to answer, or 0 when that says nothing about it. The error
// is the last try's.
func (b *Balancer) Do(ctx context.Context, s *discovery.Service, key uint64, try func(*discovery.Node) (time.Duration, error)) error {
	node := b.Pick(s, key, nil)
	if node == nil {
		return httpmsg.Errorf(503, "service %s has no usable node", s.Name)
	}
	err := b.once(ctx, node, try)
	if !b.again(ctx, err) {
		return err
	}
	tried := make([]*discovery.Node, 0, maxTries)
	for b.again(ctx, err) && len(tried) < maxTries-1 {
		tried = append(tried, node)
		if node = b.Pick(s, key, tried); node == nil {
			return err
		}
		err = b.once(ctx, node, try)
	}
	return err
}

// again reports whether another node may have the request.
func (b *Balancer) again(ctx context.Context, err error) bool {
	return err != nil && b.Retries > 0 && ctx.Err() == nil && b.Safe(err)
}

// once makes one try and keeps the node's account.
func (b *Balancer) once(ctx context.Context, node *discovery.Node, try func(*discovery.Node) (time.Duration, error)) error {
	node.Load.InFlight.Add(1)
	took, err := try(node)
	node.Load.InFlight.Add(-1)
	if took > 0 {
		observe(node, took, now())
	}
	switch {
	case err == nil && node.Load.Failed.Load() != 0:
		node.Load.Failed.Store(0)
	case err != nil && ctx.Err() == nil && b.Safe(err): // it, and nobody's haste, is why it was not reached
		node.Load.Failed.Store(now())
	}
	return err
}
