package messaging

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"
)

// backlog is what waits for all live subscribers of this sidecar together. Each
// subscriber's buffer has its own bound; this one holds however many there are.
type backlog struct {
	most  int64        // bytes
	bytes atomic.Int64 // of frames that wait or are being sent, each counted once

	mu  sync.Mutex
	all map[*subscriber]struct{}
}

func (b *backlog) enter(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = map[*subscriber]struct{}{}
	}
	b.all[s] = struct{}{}
}

// leave is for who gets no more frames.
func (b *backlog) leave(s *subscriber) {
	s.drop()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, s)
}

// hold notes one more receiver of a frame.
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

// relieve cuts those for whom the most waits until there is room.
func (b *backlog) relieve() {
	for b.bytes.Load() > b.most {
		s := b.slowest()
		if s == nil {
			return // what is left is being sent, one write of each
		}
		s.cutOff(fmt.Sprintf("slow consumer: %d MiB were waiting for all subscribers, most of it here", b.bytes.Load()>>20))
	}
}

// slowest is the subscriber for whom the most bytes wait, of those whose end
// has not begun; nil when none do.
func (b *backlog) slowest() (slowest *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most := int64(0)
	for s := range b.all {
		s.mu.Lock()
		n := s.bytes
		s.mu.Unlock()
		if n > most && s.ended.Err() == nil {
			slowest, most = s, n
		}
	}
	return slowest
}

// cutOff ends a slow subscriber and lets go of what waits for it.
func (s *subscriber) cutOff(why string) {
	s.mu.Lock()
	n := len(s.waiting)
	s.mu.Unlock()
	s.m.cut.Add(1)
	s.m.log.Warn("slow subscriber cut", "topic", s.topic, "queue", s.queue, "waiting", n)
	s.finish(ending{code: websocket.StatusPolicyViolation, reason: why})
	s.drop()
}

// drop lets go of what waits for a subscriber that gets no more.
func (s *subscriber) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m.backlog.release(s.waiting)
	s.waiting, s.bytes = nil, 0
}

// allowance is what durable subscribers may hold together, in bytes. Each gets
// a part of what is left, so that there is always some for the next.
type allowance struct {
	mu   sync.Mutex
	left int64
}

const (
	// shareOf is the part of what is left.
	shareOf = 16
	// leastShare comes on top when nearly nothing is left: a subscriber with
	// less would wait for each of its messages.
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
