package balance

import (
	"context"
	"slices"
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
}

// maxTries bounds the nodes that one request may be tried on.
const maxTries = 16

// Do calls try with a node of s. When it fails and that was safe, another node
// is tried, until one answers, none is left or ctx ends. try is told the node
// and returns how long the node took to answer, or 0 when that says nothing
// about it. The error is the last try's.
func (b *Balancer) Do(ctx context.Context, s *discovery.Service, try func(*discovery.Node) (time.Duration, error)) error {
	if len(s.Nodes) == 0 {
		return httpmsg.Errorf(503, "service %s has no usable node", s.Name)
	}
	var used [maxTries]*discovery.Node
	var err error
	for n := range used {
		tried := func(node *discovery.Node) bool { return slices.Contains(used[:n], node) }
		node := b.Pick(s.Nodes, tried)
		if node == nil {
			return err
		}
		used[n] = node
		if err = b.once(node, try); err == nil || b.Retries == 0 || !b.Safe(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// once makes one try and keeps the node's account.
func (b *Balancer) once(node *discovery.Node, try func(*discovery.Node) (time.Duration, error)) error {
	node.Load.InFlight.Add(1)
	took, err := try(node)
	node.Load.InFlight.Add(-1)
	switch {
	case err != nil && b.Safe(err): // it could not even be reached
		observe(node, failureCost)
	case took > 0:
		observe(node, took)
	}
	return err
}
