package nats

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// A member of an ordered queue that begins, or whose connection broke, does not
// know yet what the server has given to somebody else, or to nobody, and later
// messages must not overtake that. It collects what comes, in rounds, until it
// has all that is not acknowledged, and then gives it out in the order stored.
//
// In a round it gives everything back that it has not: the server takes such
// words from anybody, knows what is still out, and has that delivered again at
// once. Then it asks for more than is out, for a moment. Messages that come again
// are delivered before new ones, so a request that ends unfulfilled, or with a new
// message, has had them all; unless somebody else has got some, which the numbers
// of deliveries tell, or another server leads the consumer, which begins anew.
// How many messages are out is not enough to know: an acknowledgement of a member
// before may arrive at any time and make it less.

const (
	// roundFor is how long a round's request waits at the server, and
	// roundTimeout how long its end is waited for.
	roundFor     = 100 * time.Millisecond
	roundTimeout = 2 * time.Second
	// recallMost bounds how many numbers of messages are given back in a round:
	// those of other topics' are among them. Beyond it what is out is waited for.
	recallMost = 1 << 17
	// complainAfter is how long collecting may take until it is said.
	complainAfter = 30 * time.Second
)

// order is what a member of an ordered queue knows. The member's mu guards it.
type order struct {
	active     bool       // it has the turn
	collecting bool       // what comes is collected …
	collected  []*holding // … here
	began      time.Time
	complained time.Time
	next       uint64 // the number of the next delivery; 0 is any

	// Of the round.
	top   uint64 // the last message that had been delivered before it
	came  int    // how many deliveries came
	fresh bool   // the last of them was beyond top
	quiet bool   // the request ended unfulfilled
}

// begin begins to collect, if the turn is ours.
func (o *order) begin() {
	if o.active {
		o.collecting, o.began, o.complained, o.next = true, time.Now(), time.Now(), 0
	}
}

// arrived notes a delivery and reports that it was collected. A number that
// does not follow tells that one got lost.
func (o *order) arrived(h *holding) bool {
	if h.number != o.next && o.next != 0 && !o.collecting {
		o.begin()
	}
	o.next = h.number + 1
	if o.collecting {
		o.came++
		o.fresh = h.seq > o.top
		h.extended = time.Now()
		o.collected = append(o.collected, h)
	}
	return o.collecting
}

// twice notes a delivery, while the member collects, of a message that it has,
// and reports that it is one. m.mu is held.
func (m *member) twice(h *holding) bool {
	if !m.order.collecting || !m.has(h.seq) {
		return false
	}
	m.order.came++
	m.order.next = h.number + 1
	return true
}

// has tells that a message is here. m.mu is held.
func (m *member) has(seq uint64) bool {
	for h := range m.holdings {
		if h.seq == seq {
			return true
		}
	}
	return false
}

// begin is called when the member has the turn.
func (m *member) begin() {
	m.mu.Lock()
	m.order.active, m.pull.broken = true, true
	m.mu.Unlock()
	m.wake()
}

// lose is called when it has it no more.
func (m *member) lose() {
	m.mu.Lock()
	m.order.active, m.order.collecting, m.pull.broken = false, false, true
	m.mu.Unlock()
	m.drop()
	m.forget()
	m.wake()
}

// forget is called when what the member has is not its own any more.
func (m *member) forget() {
	m.mu.Lock()
	m.order.collected = nil
	for h := range m.holdings {
		h.lost = true
		h.held.Lose()
		m.giveSlot(h)
	}
	clear(m.holdings)
	m.pull.appetite.held = 0
	m.mu.Unlock()
	for len(m.ready) > 0 { // nobody misses them
		select {
		case <-m.ready:
		default:
		}
	}
	select {
	case m.ready <- nil: // Receive says so
	case <-m.ended.Done():
	}
}

// fenced is how long a member of an ordered queue may hold a message: less than
// the server waits, so that it is not given to somebody, or again to this one,
// while it is being worked on.
func fenced(wait time.Duration) time.Duration { return wait - wait/5 }

// collect makes one round, and gives out what was collected if that is all.
func (m *member) collect() error {
	m.extendCollected()
	ctx, cancel := context.WithTimeout(m.ended, leaveTimeout)
	defer cancel()
	before, err := m.look(ctx)
	if err != nil {
		return err
	}
	have := m.newRound(before)
	if before.NumAckPending == 0 && before.AckFloor.Consumer == before.Delivered.Consumer && len(have) == 0 {
		m.giveOut() // nothing is out
		return nil
	}
	recalled, err := m.recall(ctx, before, have)
	if err != nil {
		return err
	}
	missing := max(before.NumAckPending-len(have), 0)
	if err := m.send(request{Batch: missing + 1, Expires: roundFor}); err != nil {
		return err
	}
	if !m.roundEnds() {
		return nil
	}
	after, err := m.look(ctx)
	if err != nil {
		return err
	}
	if m.complete(before, after, recalled) {
		m.giveOut()
	}
	return nil
}

// look asks how the consumer is.
func (m *member) look(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := link.Again(ctx, m.broker.link, func(ctx context.Context) (*jetstream.ConsumerInfo, error) {
		consumer, err := m.broker.js.Consumer(ctx, m.broker.o.Stream, m.consumer)
		if err != nil {
			return nil, err
		}
		return consumer.CachedInfo(), nil
	})
	if err != nil {
		m.fail(true) // it may have gone
		return nil, fmt.Errorf("look at an ordered queue: %w", err)
	}
	return info, nil
}

// newRound begins one, with an inbox of its own, and returns which messages are
// here.
func (m *member) newRound(info *jetstream.ConsumerInfo) map[uint64]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pull.begin()
	o := &m.order
	o.top, o.came, o.fresh, o.quiet = info.Delivered.Stream, 0, false, false
	have := m.distinct()
	if time.Since(o.complained) > complainAfter {
		o.complained = time.Now()
		m.broker.o.Log.Warn("messages of an ordered queue do not come: those behind them wait",
			"topic", m.topic, "queue", m.queue, "out", info.NumAckPending, "here", len(have))
	}
	return have
}

// distinct is which messages are here. m.mu is held.
func (m *member) distinct() map[uint64]bool {
	have := make(map[uint64]bool, len(m.holdings))
	for h := range m.holdings {
		have[h.seq] = true
	}
	return have
}

// recall has the server deliver again what is out and not here, and reports
// false when it cannot.
func (m *member) recall(ctx context.Context, info *jetstream.ConsumerInfo, have map[uint64]bool) (bool, error) {
	first, last := info.AckFloor.Stream+1, info.Delivered.Stream
	if last >= first+recallMost {
		return false, nil
	}
	_, err := link.Once(ctx, m.broker.link, func(ctx context.Context) (struct{}, error) {
		subject := ""
		for seq := first; seq <= last; seq++ {
			if have[seq] {
				continue
			}
			if subject != "" {
				if err := m.broker.conn.Publish(subject, []byte(nak(0))); err != nil {
					return struct{}{}, err
				}
			}
			// What a delivery's reply looks like, https://docs.nats.io/reference/reference-protocols/nats_api_reference.
			subject = fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.%d.0", m.broker.o.Stream, m.consumer, seq, info.Delivered.Consumer, time.Now().UnixNano())
		}
		if subject == "" {
			return struct{}{}, nil
		}
		ctx, cancel := context.WithTimeout(ctx, roundTimeout)
		defer cancel()
		// The server takes one after the other, and has taken them all when it answers the last.
		_, err := m.broker.conn.RequestWithContext(ctx, subject, []byte(nak(0)))
		return struct{}{}, err
	})
	if err != nil {
		m.broker.o.Log.Debug("broker: give back what is out", "topic", m.topic, "queue", m.queue, "error", err)
	}
	return err == nil, ctx.Err()
}

// roundEnds waits for the end of the round's request.
func (m *member) roundEnds() bool {
	timer := time.NewTimer(roundTimeout)
	defer timer.Stop()
	lost := m.broker.link.Lost()
	for {
		m.mu.Lock()
		over, broken := m.pull.asked == 0, m.pull.broken || !m.order.active
		m.mu.Unlock()
		if over || broken {
			return !broken
		}
		select {
		case <-m.kick:
		case <-timer.C:
			return false
		case <-lost:
			m.fail(false)
			return false
		case <-m.ended.Done():
			return false
		}
	}
}

// complete tells, at the end of a round, that nothing is missing. When the
// server could not be told to give it again, it has done so by itself after
// AckWait.
func (m *member) complete(before, after *jetstream.ConsumerInfo, recalled bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := &m.order
	recalled = recalled || time.Since(o.began) > m.wait+m.wait/4
	return recalled && o.collecting && (o.quiet || o.fresh) && leader(before) == leader(after) && before.Created.Equal(after.Created) &&
		after.Delivered.Consumer <= before.Delivered.Consumer+uint64(o.came) && after.NumAckPending <= len(m.distinct())
}

// leader is which server of a cluster leads a consumer.
func leader(info *jetstream.ConsumerInfo) string {
	if info.Cluster == nil {
		return ""
	}
	return info.Cluster.Leader
}

// extendCollected keeps what is collected, which nobody else can.
func (m *member) extendCollected() {
	m.mu.Lock()
	every := m.wait / 4
	var old []*broker.Held
	for _, h := range m.order.collected {
		if time.Since(h.extended) > every {
			h.extended = time.Now()
			old = append(old, h.held)
		}
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(m.ended, every)
	defer cancel()
	for _, h := range old {
		if err := h.Extend(ctx); err != nil {
			m.broker.o.Log.Debug("broker: keep a message", "topic", m.topic, "queue", m.queue, "error", err)
		}
	}
}

// giveOut gives out what was collected, in order, and ends collecting.
func (m *member) giveOut() {
	defer m.wake()
	for {
		m.mu.Lock()
		collected := m.order.collected
		m.order.collected = nil
		if len(collected) == 0 || !m.order.collecting {
			m.order.collecting = false
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		slices.SortFunc(collected, func(a, b *holding) int { return cmp.Compare(a.seq, b.seq) })
		for _, h := range collected {
			select {
			case m.ready <- h:
			case <-m.ended.Done(): // leave returns it
			}
		}
	}
}
