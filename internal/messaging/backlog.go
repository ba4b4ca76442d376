package messaging

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// backlog is what this sidecar has in memory for all subscribers of a grade
// together. What it has for each is bounded as well; this bound holds however
// many there are.
type backlog struct {
	most  int64        // bytes
	bytes atomic.Int64 // what is there

	mu  sync.Mutex
	all map[burden]struct{}
}

// pressedGrace is how long a frame that is half sent may still take when its
// subscriber is cut for room: as long as it takes, it is in memory.
const pressedGrace = 100 * time.Millisecond

// burden is a subscriber that something is kept in memory for.
type burden interface {
	// weight says how much it burdens the others; 0 when nothing would be let
	// go of, or its end has begun.
	weight() int64
	// cutOff ends it, and lets go at once of what it weighs.
	cutOff(why string)
}

func (b *backlog) enter(s burden) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[burden]struct{}{}
	}
	b.all[s] = struct{}{}
}

func (b *backlog) leave(s burden) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, s)
}

// relieve cuts the heaviest until there is room.
func (b *backlog) relieve() {
	for b.bytes.Load() > b.most {
		s := b.heaviest()
		if s == nil {
			return // what is left is being sent, one write of each
		}
		s.cutOff(fmt.Sprintf("slow consumer: %d MiB were waiting for all subscribers, most of it here", b.bytes.Load()>>20))
	}
}

// heaviest is nil when none weighs anything.
func (b *backlog) heaviest() (heaviest burden) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := int64(0)
	for s := range b.all {
		if n := s.weight(); n > most {
			heaviest, most = s, n
		}
	}
	return heaviest
}

// hold notes one more receiver of a frame, which counts once.
func (b *backlog) hold(f *encoded) {
	if f.receivers.Add(1) == 1 {
		b.bytes.Add(int64(len(f.frame)))
	}
}

// release notes that a receiver is done with each of the frames.
func (b *backlog) release(frames []*encoded) {
	for _, f := range frames {
		if f.receivers.Add(-1) == 0 {
			b.bytes.Add(-int64(len(f.frame)))
		}
	}
}

// weight implements burden: the frames that wait.
func (s *subscriber) weight() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Err() != nil {
		return 0
	}
	return s.bytes
}

// cutOff implements burden.
func (s *subscriber) cutOff(why string) {
	s.mu.Lock()
	n := len(s.waiting)
	s.mu.Unlock()
	s.wire.hurry(pressedGrace)
	s.slow(why, n)
	s.drop()
}

// drop lets go of what waits for a subscriber that gets no more.
func (s *subscriber) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.live.release(s.waiting)
	s.waiting, s.bytes = nil, 0
}

// weight implements burden: the bytes of messages that the client has, times the
// milliseconds for which it has done nothing about them.
func (s *session) weight() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Err() != nil {
		return 0
	}
	return s.bytes * (1 + time.Since(s.worked).Milliseconds())
}

// cutOff implements burden. The messages are given back.
func (s *session) cutOff(why string) {
	s.mu.Lock()
	n := len(s.held)
	s.mu.Unlock()
	s.wire.hurry(pressedGrace)
	s.slow(why, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unload()
}

// unload notes that the messages are no longer here. s.mu is held.
func (s *session) unload() {
	s.left = true
	s.m.durables.bytes.Add(-s.bytes)
	s.bytes = 0
}

// slow ends a subscriber for whom too much waits.
func (c *connection) slow(why string, waiting int) {
	c.m.cut.Add(1)
	c.m.log.Warn("slow subscriber cut", "topic", c.topic, "queue", c.queue, "waiting", waiting)
	c.finish(ending{code: websocket.StatusPolicyViolation, reason: why})
}

// allowance is what durable subscribers may ask the engine for together, in
// bytes. Each gets a part of what is left, so that there is always some for the
// next.
type allowance struct {
	mu   sync.Mutex
	left int64
}

const (
	// shareOf is the part of what is left.
	shareOf = 4
	// leastShare is what one gets when nearly nothing is left: with less it
	// would wait for each of its messages.
	leastShare = 64 << 10
)

// take returns how many bytes a new subscriber may hold, at most, and what
// gives them back.
func (a *allowance) take(most int64) (n int64, give func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := min(most, a.left/shareOf)
	a.left -= taken
	return max(taken, min(most, leastShare)), func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.left += taken
	}
}
