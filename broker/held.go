package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Held is a message that a member of a durable queue has and has not settled.
// Ack, Nack and Return settle it: the first that succeeds counts, later calls
// get [ErrSettled]. One that fails leaves the message held, so that it can be
// tried again. When AckWait passes without any of them, or Extend, the message
// has lapsed. A Held is safe for concurrent use.
type Held struct {
	Stored
	// Attempt counts how often the message was given to a member, this time
	// included and deliveries that were Returned left out. It is 1 the first
	// time.
	Attempt int

	wait    time.Duration
	holding Holding
	fenced  Fenced // the holding, or nil

	mu    sync.Mutex // held during calls of holding, so that they never overlap
	ended error      // ErrSettled or ErrLapsed
	until time.Time  // when it lapses
	timer *time.Timer

	lost atomic.Bool
}

// Holding is a driver's part of a [Held], for one delivery. The Held makes
// sure that Ack, Nack and Return are never called at the same time, nor after
// one of them has succeeded, nor after Lapse.
type Holding interface {
	// Ack tells the engine that the queue is done with the message. It need
	// not wait for the engine's answer: an acknowledgement that gets lost
	// makes the message come again.
	Ack(ctx context.Context) error
	// Nack gives the message back, to be delivered again after the delay.
	Nack(ctx context.Context, delay time.Duration) error
	// Return gives it back to be delivered at once, with the same Attempt.
	Return(ctx context.Context) error
	// Extend begins the message's AckWait anew.
	Extend(ctx context.Context) error
	// Lapse tells the driver that the time is over; it is called once, from a
	// goroutine of its own. An engine that does not notice that by itself is
	// told now.
	Lapse()
}

// Fenced is a [Holding] of a member that may lose all it holds before its
// AckWait is over, at a moment that its own clock tells.
type Fenced interface {
	Holding
	// Ours tells that the message is still the member's: it is asked before
	// anything is done with it. It does not block.
	Ours() bool
}

// Hold makes a Held for a driver that has just received the message; wait is
// the queue's AckWait.
func Hold(s Stored, attempt int, wait time.Duration, h Holding) *Held {
	held := &Held{Stored: s, Attempt: attempt, wait: wait, holding: h, until: time.Now().Add(wait)}
	held.fenced, _ = h.(Fenced)
	held.mu.Lock() // the timer may be quicker than its assignment
	defer held.mu.Unlock()
	held.timer = time.AfterFunc(wait, held.lapse)
	return held
}

// AckWait is how long the message may be held without Extend.
func (h *Held) AckWait() time.Duration { return h.wait }

// Fresh tells that the message is neither settled nor lapsed.
func (h *Held) Fresh() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over() == nil
}

// Lose is for drivers: the engine gives the message to another member, whatever
// is left of its time. It does not block; a call that is under way may yet
// succeed.
func (h *Held) Lose() { h.lost.Store(true) }

// over is ErrSettled, ErrLapsed, or nil. h.mu is held.
func (h *Held) over() error {
	switch {
	case h.ended != nil:
		return h.ended
	case h.lost.Load():
		h.ended = ErrLapsed
		h.timer.Stop()
		return ErrLapsed
	case h.fenced != nil && !h.fenced.Ours():
		h.lost.Store(true)
		return h.over()
	case !time.Now().Before(h.until): // a process that was stopped for a while gets here before its timers run
		return ErrLapsed
	}
	return nil
}

// Ack acknowledges the message: its queue never sees it again.
func (h *Held) Ack(ctx context.Context) error {
	return h.settle(func() error { return h.holding.Ack(ctx) })
}

// Nack gives the message back; it is delivered again after the delay, with
// Attempt one higher.
func (h *Held) Nack(ctx context.Context, delay time.Duration) error {
	return h.settle(func() error { return h.holding.Nack(ctx, max(delay, 0)) })
}

// Return gives the message back as if it had not been delivered: it is
// delivered again at once, with the same Attempt.
func (h *Held) Return(ctx context.Context) error {
	return h.settle(func() error { return h.holding.Return(ctx) })
}

// Extend tells that the message is still being worked on: its AckWait begins
// anew.
func (h *Held) Extend(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.over(); err != nil {
		return err
	}
	if err := h.holding.Extend(ctx); err != nil {
		return err
	}
	h.until = time.Now().Add(h.wait)
	h.timer.Reset(h.wait)
	return nil
}

func (h *Held) settle(do func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.over(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	h.ended = ErrSettled
	h.timer.Stop()
	return nil
}

// lapse is called when AckWait may have passed. A call that is under way may
// yet succeed: then it looks again a little later.
func (h *Held) lapse() {
	const again = 100 * time.Millisecond
	if !h.mu.TryLock() {
		time.AfterFunc(again, h.lapse)
		return
	}
	rest := time.Until(h.until)
	ended := h.ended != nil || h.lost.Load()
	if !ended && rest > 0 {
		h.timer.Reset(rest)
	}
	if ended || rest > 0 {
		h.mu.Unlock()
		return
	}
	h.ended = ErrLapsed
	h.mu.Unlock()
	h.holding.Lapse()
}
