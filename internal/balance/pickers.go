package balance

import (
	"cmp"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"

	"github.com/micro/sidecar/internal/discovery"
)

// RoundRobin picks the node after the one picked last, in the order of ids.
// Whatever nodes come and go, and however many pick at once, between two picks
// of a node each other one that stays is picked once. A request that is tried
// again takes the next turn, so that the nodes that live share alike.
func RoundRobin(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
	n := len(s.Nodes)
	if n == 1 && len(tried) == 0 && !s.Outliers.Any() {
		return s.Nodes[0]
	}
	for {
		last := s.Turn.Load()
		next := 0
		if last != nil {
			at, found := slices.BinarySearchFunc(s.Nodes, last, func(a, b *discovery.Node) int { return cmp.Compare(a.ID, b.ID) })
			if next = at; found {
				next++
			}
		}
		node := after(s.Nodes, next, tried)
		if node == nil || s.Turn.CompareAndSwap(last, node) {
			return node
		}
	}
}

// after returns the first node from i on, round the list, that was not tried
// and is not out.
func after(nodes []*discovery.Node, i int, tried []*discovery.Node) *discovery.Node {
	for range nodes {
		if i >= len(nodes) {
			i = 0
		}
		if !avoid(nodes[i], tried) {
			return nodes[i]
		}
		i++
	}
	return nil
}

// window is how many nodes LeastRequest looks at: as many as a word has bits.
const window = 64

// LeastRequest picks the node with the fewest requests that wait for an answer
// or whose answer (a stream, a WebSocket) has not ended; among equals, chance
// decides. Of more than 64 nodes, it looks at 64 neighbours from a random one
// on, so that the cost is bounded. Two choices, as Envoy makes for its
// least-request, would be cheaper by some nanoseconds, but leave nodes without
// a long stream while others have two.
func LeastRequest(s *discovery.Service, _ uint64, tried []*discovery.Node) *discovery.Node {
	n := len(s.Nodes)
	if n == 0 {
		return nil
	}
	random := rand.Uint64()
	start := 0
	if n > window {
		start = int(random >> 32 * uint64(n) >> 32)
	}
	fewest, alike := int64(math.MaxInt64), uint64(0) // a bit for each with the fewest
	for i := range min(n, window) {
		node := s.Nodes[(start+i)%n]
		if avoid(node, tried) {
			continue
		}
		requests := node.Load.InFlight.Load() + node.Load.Open.Load()
		if node.Load.Failed.Load() != 0 && doubtful(node) {
			requests += math.MaxInt32 // it has few because it cannot be reached
		}
		if requests < fewest {
			fewest, alike = requests, 0
		}
		if requests == fewest {
			alike |= 1 << i
		}
	}
	if alike == 0 {
		return untried(s, tried, nil, false) // the whole window was tried
	}
	for range random & (1<<32 - 1) * uint64(bits.OnesCount64(alike)) >> 32 {
		alike &= alike - 1
	}
	return s.Nodes[(start+bits.TrailingZeros64(alike))%n]
}

// maxSkips bounds how many nodes that cannot be reached Hash passes over.
const maxSkips = 8

// Hash picks by rendezvous hashing (Thaler and Ravishankar, 1998): each node
// has a weight of its own for each key, the highest is taken, and the next
// ones are where a request goes that is tried again or whose node is out or could
// not be reached lately. When a node leaves, only its keys move. Every sidecar chooses
// alike. It looks at every node, at a nanosecond or so each. Without a key it is
// P2C.
func Hash(s *discovery.Service, key uint64, tried []*discovery.Node) *discovery.Node {
	if key == 0 || len(s.Nodes) == 1 {
		return P2C(s, key, tried)
	}
	var first *discovery.Node // the best of those left, if all are doubtful
	bound := uint64(math.MaxUint64)
	for skips := 0; skips < maxSkips; {
		i, weight := heaviest(s.Hashes, key, bound)
		if i < 0 {
			break
		}
		bound = weight
		node := s.Nodes[i]
		if avoid(node, tried) {
			continue
		}
		if node.Load.Failed.Load() == 0 || !doubtful(node) {
			return node
		}
		if first == nil {
			first = node
		}
		skips++
	}
	return first
}

// heaviest returns the node with the highest weight below bound, -1 when there
// is none.
func heaviest(hashes []uint64, key, bound uint64) (at int, weight uint64) {
	at = -1
	for i, h := range hashes {
		if w := discovery.Mix(key ^ h); w > weight && w < bound {
			at, weight = i, w
		}
	}
	return at, weight
}
