package httpbroker

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// maxUnderWay bounds what one subscriber has been sent and has not
	// answered yet, in bytes; a message counts for minWeight at least and
	// maxUnderWay at most, which also bounds their number.
	maxUnderWay = 16 << 20
	minWeight   = 256 << 10
	// deadFor is how long a subscriber that could not be reached is passed over.
	deadFor = 3 * time.Second
	// peerIdle is how long a subscriber is remembered that nothing is sent to.
	peerIdle = 2 * time.Minute
)

// peer is what sending to a subscriber has taught. A subscriber that went away
// stays registered until its TTL is up, and one that hangs answers nothing:
// neither may hold up those who publish.
type peer struct {
	underWay *semaphore.Weighted

	mu        sync.Mutex
	deadUntil time.Time
	slow      bool // did not answer in time, and has not answered since
	failing   bool // has been logged
	used      time.Time
}

// peers finds the peer of a node. A node that comes back after a restart has a
// new id, so it inherits nothing.
type peers struct {
	mu     sync.Mutex
	byNode map[node]*peer
	swept  time.Time
}

// node identifies a subscriber.
type node struct{ addr, id string }

func newPeers() *peers { return &peers{byNode: map[node]*peer{}} }

func (p *peers) get(n node, now time.Time) *peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.swept) > peerIdle {
		p.sweep(now)
	}
	found := p.byNode[n]
	if found == nil {
		found = &peer{underWay: semaphore.NewWeighted(maxUnderWay)}
		p.byNode[n] = found
	}
	found.mu.Lock()
	found.used = now
	found.mu.Unlock()
	return found
}

// sweep forgets the peers that were not used for long; p.mu is held.
func (p *peers) sweep(now time.Time) {
	p.swept = now
	for n, other := range p.byNode {
		other.mu.Lock()
		if now.Sub(other.used) > peerIdle {
			delete(p.byNode, n)
		}
		other.mu.Unlock()
	}
}

// health ranks a peer: the lower, the better a choice it is.
func (p *peer) health(now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case now.Before(p.deadUntil):
		return 2
	case p.slow:
		return 1
	}
	return 0
}

// reserve makes room for a delivery of the size: at once where the peer is
// slow, else waiting for it a moment. false means that there is none.
func (p *peer) reserve(ctx context.Context, weight int64) bool {
	if p.isSlow() {
		return p.underWay.TryAcquire(weight)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.underWay.Acquire(ctx, weight) == nil
}

func weigh(payload []byte) int64 {
	return min(max(int64(len(payload)), minWeight), maxUnderWay)
}

func (p *peer) isSlow() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slow
}

func (p *peer) markSlow() {
	p.mu.Lock()
	p.slow = true
	p.mu.Unlock()
}

// settle takes note of how a delivery ended, and reports whether that is news.
func (p *peer) settle(o outcome, now time.Time) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	news = p.failing != (o != taken)
	p.failing = o != taken
	switch o {
	case taken:
		p.slow, p.deadUntil = false, time.Time{}
	case unreachable:
		p.deadUntil = now.Add(deadFor)
	case refused:
		p.slow = false
	}
	return news
}
