// Package mailbox calls a subscription's handler: one delivery at a time, in
// the order they were put in, from a goroutine of its own, with a bounded
// number waiting. It owns the promises of [broker.Handler] and
// [broker.Subscription] that do not depend on the engine.
package mailbox

import (
	"sync"

	"github.com/micro/sidecar/broker"
)

// Limits bound what waits behind a handler that is busy.
type Limits struct {
	Messages int
	Bytes    int // of the bodies; a single delivery is always taken
}

// Box holds the deliveries that a handler has not seen yet. Its methods are
// safe for concurrent use.
type Box struct {
	handler broker.Handler
	limits  Limits
	done    chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	wake   sync.Cond
	queue  []broker.Delivery
	bytes  int
	closed bool
}

// New starts a box. Close must be called to free its goroutine.
func New(h broker.Handler, l Limits) *Box {
	b := &Box{handler: h, limits: l, done: make(chan struct{})}
	b.wake.L = &b.mu
	go b.run()
	return b
}

// Put hands over a delivery and reports whether it was taken: not when the box
// is full or closed. It does not block.
func (b *Box) Put(d broker.Delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	full := len(b.queue) > 0 && (len(b.queue) >= b.limits.Messages || b.bytes+len(d.Body) > b.limits.Bytes)
	if b.closed || full {
		return false
	}
	b.queue = append(b.queue, d)
	b.bytes += len(d.Body)
	b.wake.Signal()
	return true
}

// Close drops what waits and returns when the handler has returned; it is not
// called again. The handler itself must not call Close.
func (b *Box) Close() {
	b.mu.Lock()
	b.closed = true
	b.queue = nil
	b.wake.Signal()
	b.mu.Unlock()
	<-b.done
}

func (b *Box) run() {
	defer close(b.done)
	for {
		d, ok := b.next()
		if !ok {
			return
		}
		b.handler(d)
	}
}

// next waits for a delivery; false means that the box is closed.
func (b *Box) next() (broker.Delivery, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 && !b.closed {
		b.wake.Wait()
	}
	if b.closed {
		return broker.Delivery{}, false
	}
	d := b.queue[0]
	b.queue[0] = broker.Delivery{} // let the body go
	b.queue = b.queue[1:]
	b.bytes -= len(d.Body)
	return d, true
}
