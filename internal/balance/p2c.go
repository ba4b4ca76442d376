package balance

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/micro/sidecar/internal/discovery"
)

// P2C picks two nodes at random and takes the better one ("the power of two
// choices", Mitzenmacher 2001). Load is the peak-sensitive moving average of
// latency, as in Finagle's PeakEwma, times the requests that wait for an
// answer and one more. Latencies that differ by less than a factor of two are
// noise: then the requests waiting decide alone, and where these are equal,
// chance.
func P2C(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
	a, b := two(s, tried)
	if b == nil || !better(b, a) {
		return a
	}
	return b
}

// two returns two different nodes, each pair with the same chance; the second
// is nil when there is only one.
func two(s *discovery.Service, tried []*discovery.Node) (a, b *discovery.Node) {
	nodes := s.Nodes
	if len(tried) > 0 || s.Outliers.Any() {
		a = untried(s, tried, nil, false)
		return a, untried(s, tried, a, false)
	}
	n := uint64(len(nodes))
	switch n {
	case 0:
		return nil, nil
	case 1:
		return nodes[0], nil
	}
	// A number below n of 32 random bits: uneven by n/2^32 at most (Lemire,
	// "Fast random integer generation in an interval", 2019).
	r := rand.Uint64()
	i, j := (r>>32)*n>>32, (r&(1<<32-1))*(n-1)>>32
	if j >= i {
		j++
	}
	return nodes[i], nodes[j]
}

// Random picks any node.
func Random(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
	return untried(s, tried, nil, false)
}

// untried picks a random node that was not tried and is not other; with outToo,
// one that is out of the rotation will do. Some draws come first: to go on round
// the list from one that will not do favours its neighbour.
func untried(s *discovery.Service, tried []*discovery.Node, other *discovery.Node, outToo bool) *discovery.Node {
	n := len(s.Nodes)
	if n == 0 {
		return nil
	}
	outToo = outToo || !s.Outliers.Any()
	good := func(n *discovery.Node) bool {
		return n != other && (outToo || !n.Load.Out()) && !slices.Contains(tried, n)
	}
	const draws = 4
	start := 0
	for range draws {
		start = rand.IntN(n)
		if good(s.Nodes[start]) {
			return s.Nodes[start]
		}
	}
	for i := range s.Nodes {
		if node := s.Nodes[(start+i)%n]; good(node) {
			return node
		}
	}
	return nil
}

// avoid reports whether a pick leaves n alone: it was tried, or is out of the
// rotation.
func avoid(n *discovery.Node, tried []*discovery.Node) bool {
	return n.Load.Out() || slices.Contains(tried, n)
}

const (
	// halfLife is how soon an average moves half of the way to what is measured
	// now, and fades by half when nothing is: a node that was slow once gets
	// another chance without anyone's deciding it.
	halfLife = time.Second
	// floor is what is not told from the noise of scheduling.
	floor = 100 * time.Microsecond
	// pause is how long a node that could not be reached is left alone.
	pause = 2 * time.Second
)

// better reports whether a is to be preferred to b. The clock is read only
// where it decides: that costs more than all the rest.
func better(a, b *discovery.Node) bool {
	if x, y := doubtful(a), doubtful(b); x != y {
		return y
	}
	waitA, waitB := a.Load.InFlight.Load(), b.Load.InFlight.Load()
	costA, costB := max(a.Load.Latency.Load(), int64(floor)), max(b.Load.Latency.Load(), int64(floor))
	switch {
	case costA > 2*costB:
		costA = faded(a, waitA, costA)
	case costB > 2*costA:
		costB = faded(b, waitB, costB)
	}
	if costA <= 2*costB && costB <= 2*costA {
		return waitA < waitB
	}
	return costA*(waitA+1) < costB*(waitB+1)
}

// doubtful reports whether nothing good is known of a node now: it could not
// be reached lately, or the first request since then, or of all, has not been
// answered yet. So a node that is new or back is tried with one request and
// not with all at once (Finagle's penalty).
func doubtful(n *discovery.Node) bool {
	if failed := n.Load.Failed.Load(); failed != 0 {
		return n.Load.InFlight.Load() > 0 || now()-failed < int64(pause)
	}
	return n.Load.Latency.Load() == 0 && n.Load.InFlight.Load() > 0
}

// faded is the cost of a node that was slow when it was last measured. It fades
// with time, but only while no request waits there: one at a time finds out
// whether the node is well again.
func faded(n *discovery.Node, waiting, cost int64) int64 {
	if waiting > 0 {
		return cost
	}
	return max(fade(cost, now()-n.Load.Measured.Load()), int64(floor))
}

// fade halves v for each halfLife in age, with a straight line between: at
// most 6% above the true curve.
func fade(v, age int64) int64 {
	age = max(age, 0)
	v >>= min(age/int64(halfLife), 62)
	return v - v/2*(age%int64(halfLife)/1024)/(int64(halfLife)/1024)
}

// observe adds a latency to the node's average: half the way up to a slower
// answer at once, down to a faster one as time goes by. Peaks are avoided soon
// and forgotten slowly.
func observe(n *discovery.Node, took time.Duration, now int64) {
	age := now - n.Load.Measured.Swap(now)
	for {
		old := n.Load.Latency.Load()
		next := int64(took)
		switch {
		case old == 0:
		case next > old:
			next = old + (next-old)/2
		default:
			next += fade(old-next, age)
		}
		if n.Load.Latency.CompareAndSwap(old, max(next, 1)) {
			return
		}
	}
}
