package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

const (
	// retry is the time between two tries of what failed.
	retry = 200 * time.Millisecond
	// leaveTimeout bounds the giving back of what is held when a broker is closed.
	leaveTimeout = 5 * time.Second
)

// member implements [broker.Member]: it has messages brought (pull.go) and
// gives them out. One of an ordered queue does so while it has the turn
// (turn.go), and begins with what those before it have left (collect.go).
type member struct {
	broker   *Broker
	topic    string
	exact    bool
	queue    string
	o        broker.JoinOptions
	consumer string // its name

	ready  chan *holding // nil says that the turn was lost
	kick   chan struct{} // a token: there may be something to ask for
	ended  context.Context
	end    context.CancelFunc
	worker sync.WaitGroup
	late   sync.WaitGroup // messages that nobody waits for any more and are being given back

	// Of an ordered queue; nil otherwise.
	turn  *turn
	slots chan struct{} // one for each message that is given out, when the prefetch bounds that

	mu       sync.Mutex
	wait     time.Duration // the queue's AckWait
	inFlight int           // the queue's MaxInFlight
	created  time.Time     // when the consumer was made
	holdings map[*holding]struct{}
	blind    time.Time // until then the states are not asked
	pull     pull
	order    order
}

// Join implements [broker.Durable].
func (b *Broker) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	info, err := b.declare(ctx, topic, queue, o.QueueOptions)
	if err != nil {
		return nil, fmt.Errorf("join queue %q of topic %q: %w", queue, topic, err)
	}
	o.Prefetch = max(o.Prefetch, 1)
	m := &member{
		broker: b, topic: topic, exact: b.exact(topic), queue: queue, o: o, consumer: info.Name, wait: info.Config.AckWait,
		kick: make(chan struct{}, 1), created: info.Created, inFlight: max(info.Config.MaxAckPending, 0),
		holdings: make(map[*holding]struct{}),
		pull:     pull{prefix: b.conn.NewInbox(), broken: true, appetite: appetite{budget: o.PrefetchBytes}},
	}
	if m.inFlight > 0 {
		m.turn = m.newTurn()
		if o.Prefetch < m.inFlight {
			m.slots = make(chan struct{}, o.Prefetch)
		}
	}
	m.ready = make(chan *holding, m.limit()+1)
	m.ended, m.end = context.WithCancel(context.Background())
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.members == nil {
		return nil, broker.ErrClosed
	}
	b.members[m] = struct{}{}
	m.worker.Go(m.run)
	m.worker.Go(m.tellSeen)
	if m.turn != nil {
		go m.turn.run()
	}
	return m, nil
}

// limit is how many messages the member may have, given out or not.
func (m *member) limit() int {
	if m.turn != nil {
		return m.inFlight
	}
	return m.o.Prefetch
}

// Receive implements [broker.Member].
func (m *member) Receive(ctx context.Context) (*broker.Held, error) {
	for {
		if m.ended.Err() != nil {
			return nil, broker.ErrClosed
		}
		if err := m.takeSlot(ctx); err != nil {
			return nil, err
		}
		select {
		case h := <-m.ready:
			if h == nil {
				m.freeSlot()
				return nil, broker.ErrLapsed
			}
			if m.give(h) {
				return h.held, nil
			}
		case <-ctx.Done():
			m.freeSlot()
			return nil, ctx.Err()
		case <-m.ended.Done():
			return nil, broker.ErrClosed
		}
		m.freeSlot()
	}
}

// Next implements [broker.Eager].
func (m *member) Next() (*broker.Held, bool) {
	for m.turn == nil && m.ended.Err() == nil { // who has a turn is told more than that nothing is there
		select {
		case h := <-m.ready:
			if h.held.Fresh() {
				return h.held, true
			}
		default:
			return nil, false
		}
	}
	return nil, false
}

// takeSlot waits until a message may be given out: a member of an ordered queue
// may have more than its prefetch.
func (m *member) takeSlot(ctx context.Context) error {
	if m.slots == nil {
		return nil
	}
	select {
	case m.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-m.ended.Done():
		return broker.ErrClosed
	}
}

// freeSlot is for a slot that no message has.
func (m *member) freeSlot() {
	if m.slots != nil {
		<-m.slots
	}
}

// give reports that a message is still the member's, and has the slot then.
func (m *member) give(h *holding) bool {
	fresh := h.held.Fresh()
	m.mu.Lock()
	_, here := m.holdings[h]
	fresh = fresh && here
	h.slot = fresh && m.slots != nil
	passedBy := !fresh && m.turn != nil && !h.lost
	m.mu.Unlock()
	if passedBy { // what is behind it must not overtake it
		m.forget()
		m.fail(false)
	}
	return fresh
}

// giveSlot ends what give began. m.mu is held.
func (m *member) giveSlot(h *holding) {
	if h.slot {
		h.slot = false
		<-m.slots
	}
}

// Drain implements [broker.Member].
func (m *member) Drain(ctx context.Context) error {
	m.end()
	m.worker.Wait()
	m.drainInbox(ctx)
	m.late.Wait()
	var waiting []*broker.Held
	for {
		select {
		case h := <-m.ready:
			if h != nil {
				waiting = append(waiting, h.held)
			}
			continue
		default:
		}
		m.mu.Lock()
		for _, h := range m.order.collected {
			waiting = append(waiting, h.held)
		}
		m.order.collected = nil
		m.mu.Unlock()
		return m.returnAll(ctx, waiting)
	}
}

// Close implements [broker.Member].
func (m *member) Close(ctx context.Context) error {
	m.broker.mu.Lock()
	delete(m.broker.members, m)
	m.broker.mu.Unlock()
	return m.leave(ctx)
}

func (m *member) leave(ctx context.Context) error {
	drained := m.Drain(ctx)
	m.mu.Lock()
	all := make([]*broker.Held, 0, len(m.holdings))
	for h := range m.holdings {
		all = append(all, h.held)
	}
	m.mu.Unlock()
	returned := m.returnAll(ctx, all)
	if m.turn != nil { // what another shall begin with is there
		m.turn.end()
		<-m.turn.ended
	}
	return errors.Join(drained, returned)
}

func (m *member) ackWait() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.wait
}

// returnAll gives messages back, side by side.
func (m *member) returnAll(ctx context.Context, all []*broker.Held) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, h := range all {
		wg.Go(func() {
			err := h.Return(ctx)
			if !errors.Is(err, broker.ErrSettled) && !errors.Is(err, broker.ErrLapsed) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil { // one is enough: they have the same cause
			return fmt.Errorf("give back %d messages of queue %q of topic %q: %w", len(all), m.queue, m.topic, err)
		}
	}
	return nil
}

// leaveAll closes members when the broker is closed. What cannot be given back
// comes again when its time is over.
func (b *Broker) leaveAll(members map[*member]struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for m := range members {
		wg.Go(func() {
			if err := m.leave(ctx); err != nil {
				b.o.Log.Warn("broker: close", "error", err)
			}
		})
	}
	wg.Wait()
}

var _ interface {
	broker.Durable
	broker.Deduplicator
	broker.Queues
	broker.Wildcards
	broker.Bulk
} = (*Broker)(nil)

var _ broker.Eager = (*member)(nil)
