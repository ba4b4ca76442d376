package sidecar

import (
	"slices"
	"time"

	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/discovery"
)

// Selector lets --selector=name choose nodes in a way of one's own, for calls
// and proxied requests alike. choose returns the index of one of the nodes;
// anything else means that none will do, and the request gets 503. It is called
// for every request, at the same time from many goroutines, and waits for
// nothing.
//
// A request that did not reach its node is tried on another one: choose is
// called again, with the nodes that are left. Nodes that are out of the rotation,
// because they failed again and again, are not among them.
func Selector(name string, choose func(Nodes) int) Plugin {
	return func(t *table) {
		if slices.Contains(append(balance.Selectors(), "default", "cache"), name) {
			t.fail("selector %q is built in", name)
			return
		}
		enter(t, "selector", name, choose == nil, t.drivers.Selectors, picker(choose))
	}
}

// picker makes the balancer's type of ours.
func picker(choose func(Nodes) int) balance.Picker {
	return func(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
		nodes := s.Nodes
		if len(tried) > 0 || s.Outliers.Any() {
			nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *discovery.Node) bool { return n.Load.Out() || slices.Contains(tried, n) })
		}
		if len(nodes) == 0 {
			return nil
		}
		if i := choose(Nodes{s.Name, nodes}); i >= 0 && i < len(nodes) {
			return nodes[i]
		}
		return nil
	}
}

// Nodes are those of a service that a request may go to, at least one, sorted
// by id. They are valid during the call that they are given to.
type Nodes struct {
	service string
	nodes   []*discovery.Node
}

// Service is the name of the service.
func (n Nodes) Service() string { return n.service }

// Len is how many there are.
func (n Nodes) Len() int { return len(n.nodes) }

// At returns one of them.
func (n Nodes) At(i int) Node { return Node{n.nodes[i]} }

// Node is a node of a service, and what this sidecar knows about it.
type Node struct{ node *discovery.Node }

// ID identifies the node within its service.
func (n Node) ID() string { return n.node.ID }

// Address is where it listens: "host:port", or "unix:/path".
func (n Node) Address() string { return n.node.Addr }

// Version is the version of the service that it runs.
func (n Node) Version() string { return n.node.Version }

// Metadata returns a value of the node's metadata, or "".
func (n Node) Metadata(key string) string { return n.node.Metadata[key] }

// Requests is how many requests of this sidecar it has that have not ended.
func (n Node) Requests() int {
	return int(n.node.Load.InFlight.Load() + n.node.Load.Open.Load())
}

// Latency is a moving average of the time it takes to answer this sidecar; 0
// when nothing was measured.
func (n Node) Latency() time.Duration { return time.Duration(n.node.Load.Latency.Load()) }

// Failing reports that it could not be reached when that was last tried.
func (n Node) Failing() bool { return n.node.Load.Failed.Load() != 0 }
