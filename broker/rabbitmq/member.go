package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
	"github.com/micro/sidecar/broker/internal/held"
)

const (
	// How much waits in a member for the end of its delay without taking the
	// place of other messages.
	maxDelayed      = 40_000
	maxDelayedBytes = 64 << 20

	maxPrefetch = 20_000 // it has to fit 16 bits
)

// member implements [broker.Member]. RabbitMQ pushes as many messages to it as
// it may hold. What is negatively acknowledged waits here for the end of its
// delay, still unacknowledged for the server, so that a crash loses nothing.
type member struct {
	broker        *Broker
	queue         durableQueue
	label         string // the queue's name for people
	prefetch      int
	awake         chan struct{}   // holds one: there may be something in ready
	retune        chan struct{}   // holds one: the server may have to be asked for more
	drained, over context.Context // nothing more is taken; everything has ended
	drain, cancel context.CancelFunc
	done          sync.WaitGroup

	mu      sync.Mutex
	ready   held.Ready
	held    map[*holding]*broker.Held
	delayed map[*item]struct{}
	bytes   int     // of the bodies of delayed
	intake  *intake // of now
}

// intake is a channel that a member receives over. What came over it is lost
// to the member when it ends, and comes again.
type intake struct {
	source
	closed   <-chan *amqp.Error // closed with it
	over     context.Context    // ended with the channel
	end      context.CancelFunc
	request  *request     // of now
	consumer atomic.Int32 // its number, or replacing
}

// replacing is the number of a consumer that another one takes the place of.
const replacing = -1

// request is what a consumer asks for: the server gives it messages until as
// many are not settled as there is room for.
type request struct {
	room int
	out  atomic.Int32 // messages that came and are not settled
}

// spent tells that the server gives it no more.
func (r *request) spent() bool { return int(r.out.Load()) >= r.room }

// Join implements [broker.Durable].
func (b *Broker) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	q, err := b.declare(ctx, topic, queue, o.QueueOptions)
	if err != nil {
		return nil, err
	}
	m := &member{
		broker: b, queue: q, label: queue,
		prefetch: min(max(o.Prefetch, 1), maxPrefetch), awake: make(chan struct{}, 1), retune: make(chan struct{}, 1),
		held: map[*holding]*broker.Held{}, delayed: map[*item]struct{}{},
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

// rejoin is consume for a queue that somebody may have deleted: it is declared
// again, under its lock, so that nobody sees it before it gets messages.
func (m *member) rejoin(ctx context.Context) (source, error) {
	err := m.broker.locked(ctx, m.queue.name, func(*amqp.Channel) error {
		q := m.queue
		return m.broker.make(ctx, &q)
	})
	if err != nil {
		return source{}, err
	}
	return m.consume(ctx)
}

// consume begins to receive.
func (m *member) consume(ctx context.Context) (source, error) {
	_, ch, err := m.broker.consuming.channel(ctx)
	if err != nil {
		return source{}, err
	}
	src, err := bound.Call(ctx, func() (source, error) {
		return m.begin(ch, 0, m.prefetch)
	})
	if err != nil {
		go func() { _ = ch.Close() }() // its answer is of no interest
	}
	return src, err
}

// begin makes the channel's consumer n, with room for so many messages.
func (m *member) begin(ch *amqp.Channel, n, room int) (source, error) {
	if err := ch.Qos(room, 0, false); err != nil {
		return source{}, err
	}
	tag := consumerTag + strconv.Itoa(n)
	deliveries, err := ch.Consume(m.queue.name, tag, false, false, false, false, nil)
	return source{ch, tag, deliveries}, err
}

// take makes src the member's intake.
func (m *member) take(src source) {
	in := &intake{source: src, closed: src.channel.NotifyClose(make(chan *amqp.Error, 1)), request: &request{room: m.prefetch}}
	in.over, in.end = context.WithCancel(context.Background())
	m.mu.Lock()
	m.intake = in
	m.mu.Unlock()
	m.done.Go(func() { m.attend(in) })
}

// run runs until the member is closed.
func (m *member) run() {
	for {
		in := m.intake
		m.receive(in)
		m.lose(in)
		m.quit(in)
		if m.drained.Err() != nil {
			return
		}
		src, ok := again(m.drained, m.broker, m.rejoin)
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
	touch := time.NewTicker(optionsTouched)
	defer touch.Stop()
	for n := 1; ; {
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
			if !m.starved() {
				continue
			}
			if !m.askAgain(in, n) {
				return
			}
			n++
		case <-touch.C:
			ctx, cancel := context.WithTimeout(m.over, callTimeout)
			_ = m.broker.declareOptions(ctx, m.queue) // what fails now does not fail the next time
			cancel()
		case d, ok := <-in.deliveries:
			switch {
			case ok:
				m.arrive(in.item(d))
			case m.drained.Err() == nil: // the queue was deleted
				return
			default: // we have cancelled the consumer, and settle what we have
				in.deliveries = nil
			}
		}
	}
}

// starved tells that the server gives no more although there is room: what it
// waits for is delayed.
func (m *member) starved() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starving()
}

// starving is starved for one who holds m.mu.
func (m *member) starving() bool {
	return !m.queue.bounded() && m.drained.Err() == nil && m.intake.request.spent() && len(m.held) < m.prefetch &&
		len(m.delayed) < maxDelayed && m.bytes < maxDelayedBytes
}

// askAgain puts another consumer in the place of the one that is spent: a
// quorum queue does not let it have more. What that has stays ours. It returns
// false when the channel has gone.
func (m *member) askAgain(in *intake, n int) bool {
	in.consumer.Store(replacing)
	defer in.consumer.Store(int32(n)) //nolint:gosec // it does not come that far
	if _, err := bound.Call(m.over, func() (any, error) { return nil, in.channel.Cancel(in.tag, false) }); err != nil {
		return false
	}
	for d := range in.deliveries { // there may be some: what it had settled
		m.arrive(in.item(d))
	}
	m.mu.Lock()
	room := max(m.prefetch-len(m.held), 1)
	m.mu.Unlock()
	src, err := bound.Call(m.over, func() (source, error) { return m.begin(in.channel, n, room) })
	if err != nil {
		return false
	}
	m.mu.Lock()
	in.source, in.request = src, &request{room: room}
	drained := m.drained.Err() != nil
	m.mu.Unlock()
	if drained { // Drain has cancelled the one before
		_, err = bound.Call(m.over, func() (any, error) { return nil, in.channel.Cancel(in.tag, false) })
	}
	return err == nil
}

// quit leaves the queue. The one active consumer of a bounded queue is not
// cancelled first: the next one would begin before what is returned is back.
func (m *member) quit(in *intake) {
	if !m.queue.bounded() {
		in.leave()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	// What fails has gone with its connection.
	_, _ = bound.Call(ctx, func() (any, error) { return nil, in.channel.Close() })
}

// idle tells that a member of a bounded queue was drained and has nothing out.
func (m *member) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.drained.Err() != nil && m.queue.bounded() && len(m.held) == m.ready.Len()
}

// lose forgets what came over a channel that has ended. With it goes the turn
// of a queue with MaxInFlight.
func (m *member) lose(in *intake) {
	in.end()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready.Clear()
	if m.queue.bounded() && m.drained.Err() == nil {
		m.ready.Lose()
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
	held, err := m.ready.Take()
	if m.ready.Len() > 0 {
		signal(m.awake) // for another one who waits
	}
	return held, err
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
	if m.drained.Err() != nil {
		return nil, false
	}
	return m.ready.Next()
}

var _ broker.Eager = (*member)(nil)

// Drain implements [broker.Member]. A member of a queue with MaxInFlight
// returns what it has not given out only when what it has is settled: the
// next member must not begin before.
func (m *member) Drain(ctx context.Context) error {
	m.mu.Lock()
	m.drain()
	in := m.intake
	channel, tag := in.channel, in.tag
	var waiting []*broker.Held
	if !m.queue.bounded() {
		waiting = m.ready.Clear()
	}
	m.mu.Unlock()
	if m.queue.bounded() {
		signal(m.retune)
		return nil
	}
	if in.over.Err() == nil {
		if _, err := bound.Call(ctx, func() (any, error) { return nil, channel.Cancel(tag, false) }); err != nil && ctx.Err() != nil {
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
	if m.queue.bounded() {
		late = nil // with the end of the channel they come to their places
	}
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
