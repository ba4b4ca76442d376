package messaging

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

// keyField names what a message of an ordered queue is about: messages of one
// key are delivered one at a time, in the order stored. Those without are of
// one key, too.
const keyField = "Micro-Key"

// window is the least number of messages of an ordered queue that a sidecar has
// at a time. It bounds how many of one key may wait behind a message that is
// tried again until the other keys wait, too.
const window = 256

// keyOf is the message's key.
func keyOf(m broker.Message) string {
	if key, ok := m.Header[keyField]; ok {
		return key
	}
	for name, value := range m.Header { // of a publisher with a spelling of its own
		if strings.EqualFold(name, keyField) {
			return value
		}
	}
	return ""
}

// lanes deliver the messages of an ordered queue for as long as this sidecar
// has its turn: a lane a key, one message at a time in each.
type lanes struct {
	w     *Pusher
	slots chan struct{}   // as many as messages may be with the application
	quit  context.Context // no further deliveries
	over  context.Context // nothing here is ours any more
	end   context.CancelFunc
	busy  sync.WaitGroup // the lanes

	mu    sync.Mutex
	byKey map[string]*lane
	wait  time.Duration // the queue's AckWait
}

// lane is what waits for one key.
type lane struct {
	*lanes
	waiting []*broker.Held    // oldest first; the first is being delivered
	back    chan *broker.Held // brings the first again when it was given back
	again   *broker.Held      // the first, while that is waited for
}

// takeTurns delivers the messages of an ordered queue until ctx ends, or until
// something is odd, which leaving and joining again puts right.
func (w *Pusher) takeTurns(ctx context.Context, member broker.Member) {
	for w.takeTurn(ctx, member) {
		w.log.Info("the turn of the ordered queue was lost; waiting for the next")
	}
	if ctx.Err() == nil {
		w.pause(backoff(1))
	}
}

// takeTurn delivers for as long as this sidecar has the turn, and reports that
// it was lost. What it has not settled otherwise is the member's to give back.
func (w *Pusher) takeTurn(ctx context.Context, member broker.Member) (lost bool) {
	l := &lanes{w: w, slots: make(chan struct{}, w.p.Concurrency), quit: ctx, byKey: map[string]*lane{}, wait: w.p.AckWait}
	l.over, l.end = context.WithCancel(w.killed)
	var extending sync.WaitGroup
	extending.Go(l.extend)
	defer extending.Wait()
	defer l.end()
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(l.over, stop)()
	for {
		h, err := member.Receive(receiving)
		lost = errors.Is(err, broker.ErrLapsed)
		if err != nil {
			break
		}
		if ctx.Err() != nil || !w.healthy() { // the watch of the session may not have run yet
			break
		}
		if !l.put(h) {
			w.log.Info("a message came again that is being delivered; joining the ordered queue again", "id", h.ID)
			l.end()
			break
		}
	}
	if lost {
		l.end()
	}
	stop()
	if !lost {
		w.drain(member)
	}
	l.busy.Wait()
	return lost
}

// put adds a message to its lane; false means that it is there already.
func (l *lanes) put(h *broker.Held) bool {
	key := keyOf(h.Message)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait = h.AckWait()
	one, ok := l.byKey[key]
	if !ok {
		one = &lane{lanes: l, waiting: []*broker.Held{h}, back: make(chan *broker.Held, 1)}
		l.byKey[key] = one
		l.busy.Go(func() { one.run(key) })
		return true
	}
	if a := one.again; a != nil && a.ID == h.ID && h.Attempt > 1 {
		one.again, one.waiting[0] = nil, h
		one.back <- h
		return true
	}
	if h.Attempt > 1 {
		for _, other := range one.waiting {
			if other.ID == h.ID {
				return false
			}
		}
	}
	one.waiting = append(one.waiting, h)
	return true
}

// extend keeps all that is here until the turn is over.
func (l *lanes) extend() {
	for {
		l.mu.Lock()
		every := max(l.wait/3, 10*time.Millisecond)
		l.mu.Unlock()
		timer := time.NewTimer(every)
		select {
		case <-l.over.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		l.extendAll(every)
	}
}

// extendAll extends what is here, some at a time: an engine that writes to its
// disk before it answers does so for many at once.
func (l *lanes) extendAll(within time.Duration) {
	ctx, cancel := context.WithTimeout(l.over, within)
	defer cancel()
	const together = 16
	slots := make(chan struct{}, together)
	var under sync.WaitGroup
	defer under.Wait()
	for _, h := range l.all() {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		under.Go(func() {
			defer func() { <-slots }()
			if errors.Is(h.Extend(ctx), broker.ErrLapsed) {
				l.odd(h)
			}
		})
	}
}

func (l *lanes) all() []*broker.Held {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*broker.Held
	for _, one := range l.byKey {
		all = append(all, one.waiting...)
	}
	return all
}

// odd ends the turn because a message is not ours any more.
func (l *lanes) odd(h *broker.Held) {
	if l.over.Err() == nil {
		l.w.log.Info("a message has run out of its time; joining the ordered queue again", "id", h.ID)
	}
	l.end()
}

// run delivers what waits, and goes with the last.
func (l *lane) run(key string) {
	for {
		l.mu.Lock()
		h := l.waiting[0]
		l.mu.Unlock()
		if !l.w.passOver(h) && !l.deliver(h) {
			return
		}
		l.mu.Lock()
		l.waiting[0] = nil // let the body go
		l.waiting = l.waiting[1:]
		last := len(l.waiting) == 0
		if last {
			delete(l.byKey, key)
		}
		l.mu.Unlock()
		if last {
			return
		}
	}
}

// deliver posts a message until something has become of it; false means that
// nothing more is delivered.
func (l *lane) deliver(h *broker.Held) bool {
	for try := 1; ; try++ {
		a, ok := l.post(h)
		if !ok {
			return false
		}
		a, counts := l.w.weigh(h, a)
		switch {
		case !counts:
			if !l.w.pause(backoff(try)) {
				return false
			}
		case a.verdict != again:
			return l.settle(h, a)
		default:
			// The message stays here while its key waits, so that nobody gets a
			// later one; then the engine counts the attempt, and brings it again.
			delay := a.delay(h)
			l.w.log.Debug("a message is delivered again", "id", h.ID, "attempt", h.Attempt, "after", delay, "reason", a.reason)
			l.rest(delay)
			if h = l.anew(h); h == nil {
				return false
			}
			try = 0
		}
	}
}

// post makes one request, as soon as one more may be made.
func (l *lane) post(h *broker.Held) (a answer, ok bool) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-l.quit.Done():
		return a, false
	case <-l.over.Done():
		return a, false
	}
	if l.quit.Err() != nil || l.over.Err() != nil {
		return a, false
	}
	if !h.Fresh() {
		l.odd(h)
		return a, false
	}
	a = l.w.attempt(l.over, h)
	return a, l.over.Err() == nil || a.verdict == done
}

// settle does what the answer says.
func (l *lane) settle(h *broker.Held, a answer) bool {
	for try := 1; ; try++ {
		err := l.w.conclude(h, a)
		switch {
		case err == nil:
			return true
		case errors.Is(err, broker.ErrLapsed), errors.Is(err, broker.ErrSettled):
			l.odd(h)
			return false
		}
		l.w.log.Warn("a message could not be settled; trying again", "id", h.ID, "error", err)
		if !l.rest(backoff(try)) {
			return false
		}
	}
}

// anew gives the first message back and returns it when it has come again; nil
// means that nothing more is delivered.
func (l *lane) anew(h *broker.Held) *broker.Held {
	l.mu.Lock()
	l.again = h // it may be quick
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.over), l.w.m.o.Timeout)
	defer cancel()
	if err := h.Nack(ctx, 0); err != nil {
		l.odd(h)
		return nil
	}
	const enough = 10 * time.Second // beyond AckWait; somebody may have removed it
	timer := time.NewTimer(h.AckWait() + enough)
	defer timer.Stop()
	select {
	case h := <-l.back:
		return h
	case <-timer.C:
		l.odd(h)
	case <-l.quit.Done():
	case <-l.over.Done():
	}
	return nil
}

// rest waits, and reports false when nothing more is delivered.
func (l *lane) rest(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.quit.Done():
	case <-l.over.Done():
	}
	return false
}
