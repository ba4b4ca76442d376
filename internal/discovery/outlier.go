package discovery

import (
	"sync"
	"sync/atomic"
	"time"
)

// A node that fails [MaxFailures] times in a row leaves the rotation for
// ejection × n, n being how often that happened, up to maxEjection. Then one
// request finds out whether it is well. Each ejection's length that it stays in
// takes one off n. (Envoy's consecutive gateway failures.)
const (
	// MaxFailures is how many failures in a row eject a node.
	MaxFailures = 5
	ejection    = 10 * time.Second
	maxEjection = 5 * time.Minute
)

// Outliers are the nodes of a service that are out of the rotation: never more
// than half, and none while no other node looks well. Who picks a node reads
// [Outliers.Any] and [Load.Out], which take no lock; the rest is rare.
type Outliers struct {
	// next is when the first of them is due for a request, 0 when there are none.
	next atomic.Int64
	// mu orders changes of next and of what Load keeps of ejections.
	mu sync.Mutex
}

// Any reports whether any node of the service is out.
func (o *Outliers) Any() bool { return o.next.Load() != 0 }

// Probe returns a node of s, not among tried, whose time out is over, and nil
// when there is none. Nobody else gets it for a while: its request decides what
// becomes of it. now is [Now].
func (s *Service) Probe(now int64, tried []*Node) *Node {
	o := &s.Outliers
	if next := o.next.Load(); next == 0 || now < next {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.reckon(s.Nodes)
	for _, n := range s.Nodes {
		if until := n.Load.until.Load(); until != 0 && until <= now && !contains(tried, n) {
			n.Load.until.Store(now + int64(ejection)) // for a request that never says how it went
			return n
		}
	}
	return nil
}

func contains(nodes []*Node, n *Node) bool {
	for _, other := range nodes {
		if other == n {
			return true
		}
	}
	return false
}

// Failed notes that a request to n failed through n's fault. probe says that it
// was one of [Service.Probe].
func (s *Service) Failed(n *Node, now int64, probe bool) {
	l := &n.Load
	if l.failures.Add(1) < MaxFailures && !probe || len(s.Nodes) < 2 {
		return
	}
	if l.Out() && !probe {
		return // it was on its way before
	}
	s.Outliers.eject(s.Nodes, n, now, probe)
}

// Answered notes that n did what was asked of it: it is well.
func (s *Service) Answered(n *Node, now int64) {
	l := &n.Load
	if l.failures.Load() != 0 {
		l.failures.Store(0)
	}
	if !l.Out() {
		return
	}
	s.Outliers.mu.Lock()
	defer s.Outliers.mu.Unlock()
	l.readmit(now)
	s.Outliers.reckon(s.Nodes)
}

// eject takes n out, unless too many are already. When nobody looks well, all
// are used.
func (o *Outliers) eject(nodes []*Node, n *Node, now int64, probe bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.reckon(nodes)
	out, well := 0, 0
	for _, other := range nodes {
		switch {
		case other == n:
		case other.Load.Out():
			out++
		case other.Load.failures.Load() < MaxFailures:
			well++
		}
	}
	switch {
	case well == 0:
		for _, other := range nodes {
			if other.Load.Out() {
				other.Load.readmit(now)
			}
		}
	case n.Load.Out() == probe && out < len(nodes)/2:
		n.Load.eject(now)
	}
}

// reckon finds out when the next node is due; o.mu is held.
func (o *Outliers) reckon(nodes []*Node) {
	next := int64(0)
	for _, n := range nodes {
		if until := n.Load.until.Load(); until != 0 && (next == 0 || until < next) {
			next = until
		}
	}
	o.next.Store(next)
}

// fit keeps the rules in a snapshot whose nodes have changed: when more than
// half are out, those come back that have the least time left.
func (o *Outliers) fit(nodes []*Node, now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.reckon(nodes)
	for {
		out := 0
		var first *Node
		for _, n := range nodes {
			if until := n.Load.until.Load(); until != 0 {
				if out++; first == nil || until < first.Load.until.Load() {
					first = n
				}
			}
		}
		if out <= len(nodes)/2 {
			return
		}
		first.Load.readmit(now)
	}
}

// Out reports whether the node is out of the rotation.
func (l *Load) Out() bool { return l.until.Load() != 0 }

// eject takes the node out; the service's lock is held.
func (l *Load) eject(now int64) {
	if back := l.back.Load(); back != 0 && !l.Out() {
		l.times.Store(max(l.times.Load()-(now-back)/int64(ejection), 0))
	}
	times := l.times.Add(1)
	l.ejected.Add(1)
	l.until.Store(now + int64(min(ejection*time.Duration(times), maxEjection)))
}

// readmit puts the node back; the service's lock is held.
func (l *Load) readmit(now int64) {
	l.until.Store(0)
	l.back.Store(now)
}

// NodeState is a node's condition at a moment, for people and their tools.
type NodeState struct {
	// Ejected: the node is out of the rotation, for Left yet; when that is 0,
	// the next request is let through to find out about it.
	Ejected bool
	Left    time.Duration
	// Failures is how many requests failed in a row through the node's fault.
	Failures int
	// Ejections is how often the node has left the rotation so far.
	Ejections int
	// InFlight and Open are the fields of Load.
	InFlight, Open int64
	// Latency is the moving average, 0 when nothing was measured.
	Latency time.Duration
}

// State returns the node's condition now. It takes no lock: the fields may be
// of slightly different moments.
func (n *Node) State() NodeState {
	l := &n.Load
	until := l.until.Load()
	return NodeState{
		Ejected: until != 0, Left: time.Duration(max(until-Now(), 0)),
		Failures: int(l.failures.Load()), Ejections: int(l.ejected.Load()),
		InFlight: l.InFlight.Load(), Open: l.Open.Load(), Latency: time.Duration(l.Latency.Load()),
	}
}
