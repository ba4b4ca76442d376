// Package balance chooses the node of a service that gets the next request.
// It reads and writes the load kept in discovery's nodes; it holds no state of
// its own and takes no lock.
package balance

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

// Picker chooses a node that tried does not report, or nil when none is left.
// tried may be nil. A Picker is safe for concurrent use and does not allocate.
type Picker func(nodes []*discovery.Node, tried func(*discovery.Node) bool) *discovery.Node

// New returns the picker of that name: "p2c" or "random".
func New(name string) (Picker, error) {
	switch name {
	case "p2c":
		return P2C, nil
	case "random":
		return Random, nil
	}
	return nil, fmt.Errorf("unknown selector %q: p2c or random", name)
}

// Random picks any node.
func Random(nodes []*discovery.Node, tried func(*discovery.Node) bool) *discovery.Node {
	return untried(nodes, tried, nil)
}

// P2C picks two nodes at random and takes the less loaded one ("the power of
// two choices", Mitzenmacher 2001): load is the average latency times the
// requests in flight and one more. A difference of less than half is taken for
// noise: then chance decides, so that nodes that are alike share alike.
func P2C(nodes []*discovery.Node, tried func(*discovery.Node) bool) *discovery.Node {
	a := untried(nodes, tried, nil)
	if a == nil || len(nodes) == 1 {
		return a
	}
	b := untried(nodes, tried, a)
	if b == nil || cost(a) < 2*cost(b) {
		return a
	}
	return b
}

// untried picks a random node, going on round the list from one that was tried
// or is other.
func untried(nodes []*discovery.Node, tried func(*discovery.Node) bool, other *discovery.Node) *discovery.Node {
	if len(nodes) == 0 {
		return nil
	}
	start := rand.IntN(len(nodes))
	for i := range nodes {
		n := nodes[(start+i)%len(nodes)]
		if n != other && (tried == nil || !tried(n)) {
			return n
		}
	}
	return nil
}

const (
	// halfLife is how long an average counts in full before it fades by half: a
	// node that was slow once gets another chance without anyone's deciding it.
	halfLife = 2 * time.Second
	// failureCost is what a failed request counts as: without it a dead node,
	// which has no latency, would look like the best of all.
	failureCost = 100 * time.Millisecond
)

// cost is the load of a node; one without history is cheap, so that it is
// tried soon, but not free.
func cost(n *discovery.Node) int64 {
	latency := n.Load.Latency.Load()
	if age := time.Now().UnixNano() - n.Load.Measured.Load(); age > int64(halfLife) {
		latency >>= min(age/int64(halfLife), 62)
	}
	return max(latency, int64(10*time.Microsecond)) * (n.Load.InFlight.Load() + 1)
}

// observe adds a latency to the node's average. A slower answer counts at once
// (the average jumps to it half-way), a faster one by an eighth: peaks are
// avoided soon and forgotten slowly.
func observe(n *discovery.Node, took time.Duration) {
	for {
		old := n.Load.Latency.Load()
		now := int64(took)
		switch {
		case old == 0:
		case now > old:
			now = old + (now-old)/2
		default:
			now = old - (old-now)/8
		}
		if n.Load.Latency.CompareAndSwap(old, now) {
			n.Load.Measured.Store(time.Now().UnixNano())
			return
		}
	}
}
