package stats

import (
	"sync/atomic"
	"time"
)

// Protocol is how a request came to its service.
type Protocol uint8

// The protocols.
const (
	Proxy Protocol = iota
	RPC
	Protocols = 2
)

// String is the protocol's name in metrics.
func (p Protocol) String() string { return [Protocols]string{"proxy", "rpc"}[p] }

// Reason says why a request failed otherwise than by the node's own answer.
type Reason uint8

// The reasons.
const (
	NoReason    Reason = iota
	Unreachable        // no byte of it reached a node
	Timeout            // the time ran out
	Broken             // the node broke off, or spoke nonsense
	Cancelled          // the client went away
	NoNode             // the service has no usable node
	Overload           // a limit was reached
	Refused            // the sidecar refused it: malformed, too large …
	Other
	Reasons = 9
)

// String is the reason's name in metrics.
func (r Reason) String() string {
	return [Reasons]string{"", "unreachable", "timeout", "broken", "cancelled", "no_node", "overload", "refused", "other"}[r]
}

// Meter counts the requests to a service, or to one of its nodes. The zero value
// has counted nothing, and holds no memory until it does. It is safe for
// concurrent use and takes no lock. A nil one counts nothing.
type Meter struct{ counts atomic.Pointer[counts] }

type counts struct {
	classes   [Protocols][Classes]atomic.Uint64
	reasons   [Reasons]atomic.Uint64
	latencies histogram
}

// Record notes a request that was answered with that HTTP status, 0 for none.
// took is the time to the answer, 0 when it says nothing.
func (m *Meter) Record(p Protocol, status int, why Reason, took time.Duration) {
	if m == nil {
		return
	}
	c := m.counts.Load()
	if c == nil {
		m.counts.CompareAndSwap(nil, new(counts))
		c = m.counts.Load()
	}
	c.classes[p][class(status)].Add(1)
	if why != NoReason {
		c.reasons[why].Add(1)
	}
	if took > 0 {
		c.latencies.add(took)
	}
}

// Fail notes why a request went wrong that was recorded before.
func (m *Meter) Fail(why Reason) {
	if m == nil {
		return
	}
	if c := m.counts.Load(); c != nil {
		c.reasons[why].Add(1)
	}
}

// Counts is what a Meter has counted.
type Counts struct {
	Classes [Protocols][Classes]uint64
	Reasons [Reasons]uint64
	Latencies
}

// Read copies what was counted to c, and reports whether there is anything. A
// request that is recorded meanwhile may be there in part.
func (m *Meter) Read(c *Counts) bool {
	from := m.counts.Load()
	if from == nil {
		return false
	}
	for p := range from.classes {
		for i := range from.classes[p] {
			c.Classes[p][i] = from.classes[p][i].Load()
		}
	}
	for i := range from.reasons {
		c.Reasons[i] = from.reasons[i].Load()
	}
	for i := range from.latencies.buckets {
		c.Buckets[i] = from.latencies.buckets[i].Load()
	}
	c.Sum = time.Duration(from.latencies.sum.Load())
	return true
}

// requests is how many were recorded.
func (m *Meter) requests() (n uint64) {
	c := m.counts.Load()
	if c == nil {
		return 0
	}
	for p := range c.classes {
		for i := range c.classes[p] {
			n += c.classes[p][i].Load()
		}
	}
	return n
}
