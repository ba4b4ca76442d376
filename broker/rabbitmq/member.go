package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/held"
)

const (
	// How much waits in a member for the end of its delay without taking the
	// place of other messages.
	maxDelayed      = 40_000
	maxDelayedBytes = 64 << 20

	maxPrefetch = 20_000 // with maxDelayed it fits the server's 16 bits
)

// member implements [broker.Member]. RabbitMQ pushes as many messages to it as
// it may hold. What is negatively acknowledged waits here for the end of its
// delay, still unacknowledged for the server, so that a crash loses nothing.
type member struct {
	broker        *Broker
	queue         durableQueue
	label         string // the queue's name for people
	prefetch      int
	budget        int             // of what is held, in bytes; 0 is no bound
	awake         chan struct{}   // holds one: there may be something in ready
	retune        chan struct{}   // holds one: delayed has changed
	drained, over context.Context // nothing more is taken; everything has ended
	drain, cancel context.CancelFunc
	done          sync.WaitGroup

	mu      sync.Mutex
	ready   []*broker.Held // here, and not yet given out
	held    map[*holding]*broker.Held
	delayed map[*item]struct{}
	bytes   int     // of the bodies of delayed
	usual   int     // how large a message may well be; 0 while none has come
	told    int     // how many of them the server was told may be held
	intake  *intake // of now
	lost    bool    // the turn of a queue with MaxInFlight was lost, and Receive has not said so yet
}

// intake is a channel that a member receives over. What came over it is lost
// to the member when it ends, and comes again.
type intake struct {
	source
	closed <-chan *amqp.Error // closed with it
	over   context.Context    // ended with the channel
	end    context.CancelFunc
}

// Join implements [broker.Durable].
func (b *Broker) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	q, err := b.declare(ctx, topic, queue, o.QueueOptions)
	if err != nil {
		return nil, err
	}
	m := &member{
		broker: b, queue: q, label: queue,
		prefetch: min(max(o.Prefetch, 1), maxPrefetch), awake: make(chan struct{}, 1), retune: make(chan struct{}, 1),
		held: map[*holding]*broker.Held{}, delayed: map[*item]struct{}{}, budget: o.PrefetchBytes,
	}
	if m.queue.bounded() {
		m.prefetch = min(m.prefetch, q.options.MaxInFlight)
	}
	src, err := m.consume(ctx)
	if err != nil {
		return nil, fmt.Errorf("join queue %s: %w", queue, err)
	}
	m.over, m.cancel = context.WithCancel(context.Background())
	m.drained, m.drain = context.WithCancel(m.over)
	m.take(src)
	m.done.Go(m.run)
	if err := b.open.Add(m); err != nil {
		m.End()
		return nil, err
	}
	return m, nil
}

// consume begins to receive, and declares the queue again: somebody may have
// deleted it.
func (m *member) consume(ctx context.Context) (source, error) {
	_, ch, err := m.broker.consuming.channel(ctx)
	if err != nil {
		return source{}, err
	}
	src, err := within(ctx, func() (source, error) {
		if err := m.queue.make(ch, m.broker.address.durable()); err != nil {
			return source{}, err
		}
		if err := ch.Qos(m.room(), 0, true); err != nil { // for the channel: it changes while we consume
			return source{}, err
		}
		deliveries, err := ch.Consume(m.queue.name, consumerTag, false, false, false, false, nil)
		return source{ch, deliveries}, err
	})
	if err != nil {
		go func() { _ = ch.Close() }() // its answer is of no interest
	}
	return src, err
}

// take makes src the member's intake.
func (m *member) take(src source) {
	in := &intake{source: src, closed: src.channel.NotifyClose(make(chan *amqp.Error, 1))}
	in.over, in.end = context.WithCancel(context.Background())
	m.mu.Lock()
	m.intake = in
	m.mu.Unlock()
}

// run runs until the member is closed.
func (m *member) run() {
	for {
		in := m.intake
		m.receive(in)
		m.lose(in)
		in.leave()
		if m.drained.Err() != nil {
			return
		}
		src, ok := again(m.drained, m.broker, m.consume)
		if !ok {
			return
		}
		m.take(src)
		m.done.Go(m.enroll) // somebody may have deleted the queue
	}
}

// enroll writes the queue into the index again.
func (m *member) enroll() {
	b := m.broker
	select {
	case b.declaring <- struct{}{}:
		defer func() { <-b.declaring }()
	case <-m.over.Done():
		return
	}
	ctx, cancel := context.WithTimeout(m.over, callTimeout)
	defer cancel()
	if err := b.enroll(ctx, m.queue.topic, m.label); err != nil {
		b.log.Debug("broker: a queue is not in the list of queues", "queue", m.label, "error", err)
	}
}

// receive returns when the channel has ended, or the member.
func (m *member) receive(in *intake) {
	deliveries := in.deliveries
	touch := time.NewTicker(optionsTouched)
	defer touch.Stop()
	for {
		select {
		case <-m.over.Done():
			return
		case err := <-in.closed:
			if err != nil { // else it was closed in order
				m.broker.log.Debug("broker: a member has lost its channel", "queue", m.label, "error", err)
			}
			return
		case <-m.retune:
			if m.idle() {
				return
			}
			// What fails has gone with its channel.
			_, _ = within(m.over, func() (any, error) { return nil, in.channel.Qos(m.room(), 0, true) })
		case <-touch.C:
			_, _ = within(m.over, func() (any, error) { return nil, m.queue.declareOptions(in.channel) })
		case d, ok := <-deliveries:
			switch {
			case ok:
				m.offer(newItem(in, d), 0)
			case m.drained.Err() == nil: // the queue was deleted
				return
			default: // we have cancelled the consumer, and settle what we have
				deliveries = nil
			}
		}
	}
}

// idle tells that a member of a bounded queue was drained and has nothing out.
func (m *member) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drained.Err() != nil && m.queue.bounded() && len(m.held) == len(m.ready)
}

// room is how many messages the server may have given us.
func (m *member) room() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = m.fit()
	if m.queue.bounded() || m.bytes > maxDelayedBytes {
		return m.told
	}
	return m.told + min(len(m.delayed), maxDelayed)
}

// fit is how many messages of the usual size the member may hold: RabbitMQ can
// be told a number alone. Before one has come they are taken to be large. m.mu
// is held.
func (m *member) fit() int {
	if m.budget <= 0 {
		return m.prefetch
	}
	usual := m.usual
	if usual == 0 {
		usual = MaxMessage
	}
	return min(max(m.budget/usual, 1), m.prefetch)
}

// measure notes the size of a message. The usual size grows at once and
// shrinks slowly. m.mu is held.
func (m *member) measure(size int) {
	m.usual = max(size, m.usual-m.usual/16, 1<<10)
	if fit := m.fit(); fit < m.told || fit >= 2*m.told || fit == m.prefetch && m.told < fit {
		signal(m.retune)
	}
}

// lose forgets what came over a channel that has ended. With it goes the turn
// of a queue with MaxInFlight.
func (m *member) lose(in *intake) {
	in.end()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.queue.bounded() && m.drained.Err() == nil {
		m.lost = true
		for _, held := range m.held {
			held.Lose()
		}
		signal(m.awake)
	}
	for it := range m.delayed {
		it.stop()
	}
	clear(m.delayed)
	m.bytes = 0
	clear(m.held)
	m.ready = nil
}

// Receive implements [broker.Member].
func (m *member) Receive(ctx context.Context) (*broker.Held, error) {
	for {
		switch {
		case m.drained.Err() != nil:
			return nil, broker.ErrClosed
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		if held, err := m.next(); held != nil || err != nil {
			return held, err
		}
		select {
		case <-m.awake:
		case <-ctx.Done():
		case <-m.drained.Done():
		}
	}
}

// next returns a message that is here, or ErrLapsed once when the turn was lost.
func (m *member) next() (*broker.Held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.lost:
		m.lost = false
		return nil, broker.ErrLapsed
	case len(m.ready) == 0:
		return nil, nil
	}
	held := m.ready[0]
	m.ready = m.ready[1:]
	if len(m.ready) > 0 {
		signal(m.awake) // for another one who waits
	}
	return held, nil
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Next implements [broker.Eager].
func (m *member) Next() (*broker.Held, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lost || len(m.ready) == 0 || m.drained.Err() != nil {
		return nil, false
	}
	held := m.ready[0]
	m.ready = m.ready[1:]
	return held, true
}

var _ broker.Eager = (*member)(nil)

// Drain implements [broker.Member]. A member of a queue with MaxInFlight
// returns what it has not given out only when what it has is settled: the
// next member must not begin before.
func (m *member) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.drain()
	in, waiting := m.intake, m.ready
	m.ready = nil
	if m.queue.bounded() {
		m.ready = waiting
	}
	m.mu.Unlock()
	if m.queue.bounded() {
		signal(m.retune)
		return nil
	}
	if in.over.Err() == nil {
		if _, err := within(ctx, func() (any, error) { return nil, in.channel.Cancel(consumerTag, false) }); err != nil && ctx.Err() != nil {
			return err
		}
	}
	return held.ReturnAll(ctx, waiting)
}

// Close implements [broker.Member].
func (m *member) Close(ctx context.Context) error {
	m.broker.open.Drop(m)
	drained := m.Drain(ctx)
	m.mu.Lock()
	all := make([]*broker.Held, 0, len(m.held))
	for _, held := range m.held {
		all = append(all, held)
	}
	late := make([]*item, 0, len(m.delayed))
	for it := range m.delayed {
		it.stop()
		late = append(late, it)
	}
	clear(m.delayed)
	m.mu.Unlock()
	errs := []error{drained, held.ReturnAll(ctx, all)}
	for _, it := range late {
		if err := it.giveBack(ctx, m, it.attempt); err != nil && !errors.Is(err, broker.ErrLapsed) {
			errs = append(errs, err)
		}
	}
	m.cancel()
	m.done.Wait()
	return errors.Join(errs...)
}

// End implements [openset.Ender].
func (m *member) End() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		m.broker.log.Debug("broker: messages are given back with their connection", "queue", m.label, "error", err)
	}
}
