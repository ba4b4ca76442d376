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
	// Retries is how many further nodes are tried after the first.
	Retries int
	// Safe reports that a failed try reached no node, so that another one may
	// have the request.
	Safe func(error) bool
}

// Do calls try with a node of s. When it fails and that was safe, another node
// is tried, until one answers, Retries are used up, none is left or ctx ends.
// try is told the node and returns how long the node took to answer, or 0 when
// that says nothing about it. The error is the last try's.
func (b *Balancer) Do(ctx context.Context, s *discovery.Service, try func(*discovery.Node) (time.Duration, error)) error {
	if len(s.Nodes) == 0 {
		return httpmsg.Errorf(503, "service %s has no usable node", s.Name)
	}
	var used [8]*discovery.Node
	n := 0
	tried := func(node *discovery.Node) bool {
		for _, u := range used[:n] {
			if u == node {
				return true
			}
		}
		return false
	}
	var err error
	for n <= b.Retries && n < len(used) {
		node := b.Pick(s.Nodes, tried)
		if node == nil {
			return err
		}
		used[n], n = node, n+1
		var took time.Duration
		node.Load.InFlight.Add(1)
		took, err = try(node)
		node.Load.InFlight.Add(-1)
		if took > 0 {
			Observe(node, took)
		}
		if err == nil || !b.Safe(err) || ctx.Err() != nil {
			return err
		}
	}
	return err
}
