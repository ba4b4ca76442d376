package balance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/sleep"
)

// Balancer sends a request to a node, and once more where that is safe, in time
// and within the service's budget. It is immutable and safe for concurrent use.
type Balancer struct {
	Pick Picker
	// Retries is how often a request is sent again. Nodes that it did not reach
	// do not count while there are others, but with 0 none is tried again.
	Retries int
	// TryTimeout bounds each try. 0 leaves a try all the time that the request
	// has, but half of it, or twice as long as the node usually takes, when
	// another node may be tried after it.
	TryTimeout time.Duration
	// Limit bounds the requests that wait for an answer at a time; nil: nothing does.
	Limit *Limit

	key func(*httpmsg.Request) uint64 // nil when Pick needs none
}

// Request is what the balancer wants to know of a request.
type Request struct {
	// Key is [Balancer.Key] of it, 0 when there is none.
	Key uint64
	// Repeatable: it may be carried out twice. Others are sent again only when
	// they reached no node.
	Repeatable bool
	// Timeout is the time that it has, all tries included, 0 for no end; the
	// context's deadline holds beside it.
	Timeout time.Duration
	// Shortened: its client gave it less time than the sidecar would. That a
	// node did not answer in it says nothing about the node.
	Shortened bool
}

// Try is one try of a request.
type Try struct {
	Node *discovery.Node
	// Begun is when it begins, as [discovery.Now] has it.
	Begun int64
	// Limit is how long it may take, 0 for no end. Only the wait for the begin of
	// an answer that streams counts.
	Limit time.Duration
	// Cut: the request's own time is longer.
	Cut bool

	probe   bool // whether the node is well is found out by this try
	excused bool // the node is not to blame when time runs out
}

// Fate says what a try tells about its node, and whether another may follow.
type Fate uint8

const (
	// Answered says that the node did its part, whatever it said.
	Answered Fate = iota
	// Unreached says that not a byte came to the node, for which it is to blame.
	Unreached
	// Refused says that the node said that it did not begin with the request.
	Refused
	// Failed says that it did so through the node's fault, which may have carried
	// out the request.
	Failed
	// Blameless says that it ended for a reason that is not the node's.
	Blameless
)

// Result is how a try ended.
type Result struct {
	Err  error
	Fate Fate
	// Timed: how long it took is the node's doing, and counts for its latency.
	Timed bool
	// Final: whatever its fate, no other try may follow; its body is gone, say.
	Final bool
	// RetryAfter is how long the node wants to be left alone.
	RetryAfter time.Duration
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

// Do calls try with a node of s. When it fails and that is safe, another node
// is tried, or the same one after a pause when there is no other, until one
// answers, there is nobody left to ask or no time. The error is the last try's,
// or an *[httpmsg.Error] when there was none: 503 for a service without nodes,
// 429 over the limit.
func (b *Balancer) Do(ctx context.Context, s *discovery.Service, r Request, try func(Try) Result) error {
	t := Try{Begun: now()}
	end := until(ctx, r.Timeout, t.Begun)
	if b.Limit != nil {
		if err := b.Limit.Enter(ctx); err != nil {
			return err
		}
		defer b.Limit.Leave()
		t.Begun = now()
	}
	s.Budget.Count()
	if t.Node, t.probe = b.first(s, r.Key, t.Begun); t.Node == nil {
		return httpmsg.Errorf(503, "service %s has no usable node", s.Name)
	}
	b.bound(&t, r, len(s.Nodes) > 1, end)
	result, ended := b.once(s, t, try)
	if result.Err == nil {
		return nil
	}
	c := course{b: b, s: s, r: r, end: end, left: b.Retries}
	return c.goOn(ctx, t, result, ended, try)
}

// allows reports whether another try may follow one that ended so.
func (r Request) allows(result Result) bool {
	switch {
	case result.Err == nil || result.Final:
		return false
	case result.Fate == Unreached || result.Fate == Refused:
		return true
	}
	return result.Fate == Failed && r.Repeatable
}

// until is when the request's time is over, 0 for never.
func until(ctx context.Context, timeout time.Duration, begun int64) int64 {
	end := int64(0)
	if timeout > 0 {
		end = begun + int64(timeout)
	}
	if deadline, ok := ctx.Deadline(); ok {
		if d := begun + int64(time.Until(deadline)); end == 0 || d < end {
			end = d
		}
	}
	return end
}

// bound sets how long a try may take. more: there is another node to go to.
func (b *Balancer) bound(t *Try, r Request, more bool, end int64) {
	t.Limit = b.TryTimeout
	if end == 0 {
		t.Cut = t.Limit > 0
		t.excused = r.Shortened
		return
	}
	left := time.Duration(max(end-t.Begun, 1))
	if t.Limit == 0 && more && r.Repeatable && b.Retries > 0 {
		t.Limit = max(left/2, 2*time.Duration(t.Node.Load.Latency.Load()))
	}
	if t.Cut = t.Limit > 0 && t.Limit < left; !t.Cut {
		t.Limit = left
	}
	t.excused = r.Shortened && t.Limit != b.TryTimeout
}

// first picks the node for the first try. A node that is due to be looked at
// comes before all; when all are out, all are used.
func (b *Balancer) first(s *discovery.Service, key uint64, now int64) (node *discovery.Node, probe bool) {
	if s.Outliers.Any() {
		if node = s.Probe(now, nil); node != nil {
			return node, true
		}
	}
	if node = b.Pick(s, key, nil); node == nil {
		node = untried(s, nil, nil, true)
	}
	return node, false
}

// once makes one try and keeps the node's account. It returns when the try
// ended.
func (b *Balancer) once(s *discovery.Service, t Try, try func(Try) Result) (Result, int64) {
	node := t.Node
	node.Load.InFlight.Add(1)
	result := try(t)
	node.Load.InFlight.Add(-1)
	ended := now()
	if result.Timed {
		observe(node, time.Duration(max(ended-t.Begun, 1)), ended)
	}
	switch result.Fate {
	case Answered:
		if node.Load.Failed.Load() != 0 {
			node.Load.Failed.Store(0)
		}
		s.Answered(node, ended)
	case Unreached:
		node.Load.Failed.Store(ended)
		s.Failed(node, ended, t.probe)
	case Failed:
		if !t.excused || !errors.Is(result.Err, context.DeadlineExceeded) {
			s.Failed(node, ended, t.probe)
		}
	}
	return result, ended
}

// course is what became of a request whose first try failed.
type course struct {
	b     *Balancer
	s     *discovery.Service
	r     Request
	end   int64             // of its time, 0 for none
	left  int               // how many more tries may reach a node
	tried []*discovery.Node // in this round
	round int               // how often all were tried
}

// goOn makes tries until one succeeds or none may follow.
func (c *course) goOn(ctx context.Context, t Try, result Result, ended int64, try func(Try) Result) error {
	for c.b.Retries > 0 && c.r.allows(result) {
		if c.tried == nil {
			c.tried = make([]*discovery.Node, 0, maxTries)
		}
		c.tried = append(c.tried, t.Node)
		node, wait := c.next(result, ended)
		if node == nil || sleep.For(ctx, wait) != nil {
			break
		}
		if t = (Try{Node: node, Begun: ended}); wait > 0 {
			t.Begun = now()
		}
		c.b.bound(&t, c.r, len(c.s.Nodes) > len(c.tried)+1 && c.left > 0, c.end)
		if result, ended = c.b.once(c.s, t, try); result.Err == nil {
			return nil
		}
	}
	if result.Fate != Answered && c.end != 0 && ended >= c.end && !errors.Is(result.Err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, result.Err)
	}
	return result.Err
}

// next chooses the node that is tried after one that failed, and how long that
// has to wait. There is none when the request has been tried often enough or has
// no time left, or when the service's budget is spent: what reached no node is
// no burden to it.
func (c *course) next(result Result, ended int64) (node *discovery.Node, wait time.Duration) {
	free := result.Fate == Unreached && c.round == 0
	if len(c.tried) < maxTries {
		node = c.b.another(c.s, c.r.Key, c.tried, free)
	}
	if node == nil { // the same ones again, after a pause that spreads those who wait
		node, free = c.b.Pick(c.s, c.r.Key, nil), false
		wait = backoff(c.round)
		c.tried = c.tried[:0]
		c.round++
	}
	wait = max(wait, result.RetryAfter)
	switch {
	case c.end != 0 && int64(wait) >= c.end-ended:
		return nil, 0
	case free:
		return node, wait
	case c.left == 0 || !c.s.Budget.Take(ended):
		return nil, 0
	}
	c.left--
	return node, wait
}

// another picks a node that was not tried. With anyhow, one that is out of the
// rotation will do when there is no other: those that are in may have failed
// only just now, and the others may have come back.
func (b *Balancer) another(s *discovery.Service, key uint64, tried []*discovery.Node, anyhow bool) *discovery.Node {
	node := b.Pick(s, key, tried)
	if node == nil && anyhow && s.Outliers.Any() {
		node = untried(s, tried, nil, true)
	}
	return node
}

const (
	// backoffBase is the longest pause before a node is tried again at once; it
	// doubles up to backoffMax.
	backoffBase = 50 * time.Millisecond
	backoffMax  = time.Second
)

// backoff is the pause before the same nodes are tried once more.
func backoff(round int) time.Duration {
	longest := min(backoffBase<<min(round, 10), backoffMax)
	return longest/2 + rand.N(longest/2)
}
