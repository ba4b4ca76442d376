package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/held"
)

const (
	// heartbeat is how often a member says that it is there, and looks for
	// messages whatever it was told; presence is how long that is believed.
	heartbeat = 5 * time.Second
	presence  = 3 * heartbeat
)

// member implements [broker.Member]. It takes messages when somebody waits for
// one: the server keeps what is given out, until when, and to whom it goes
// next; see scripts/take.lua.
type member struct {
	broker        *Broker
	topic         string
	queue         string
	name          string
	o             broker.JoinOptions
	heard         *listener
	awake         chan struct{}   // holds one: there may be something to take
	taking        chan struct{}   // held by the one who takes
	drained, over context.Context // nothing more is taken; everything has ended
	drain, cancel context.CancelFunc
	done          sync.WaitGroup

	// Of the one who takes.
	call      int  // counts
	uncertain bool // the answer to the call before got lost

	mu    sync.Mutex
	ready []*broker.Held // taken, and not yet given out
	held  map[*holding]*broker.Held
	bytes int           // of held
	wait  time.Duration // the queue's AckWait, as far as it is known

	// Of an ordered queue.
	until time.Time // when another may have the turn; zero while we have none
	lost  bool      // we had it, and Receive has not said so yet
}

// Join implements [broker.Durable].
func (b *Broker) Join(ctx context.Context, topic, queue string, o broker.JoinOptions) (broker.Member, error) {
	if err := b.Declare(ctx, topic, queue, o.QueueOptions); err != nil {
		return nil, err
	}
	o.Prefetch = max(o.Prefetch, 1)
	m := &member{
		broker: b, topic: topic, queue: queue, name: rand.Text(), o: o,
		awake: make(chan struct{}, 1), taking: make(chan struct{}, 1), held: map[*holding]*broker.Held{},
	}
	var err error
	if m.heard, err = b.listen(ctx, keys(topic)+"wake", 1); err != nil {
		return nil, fmt.Errorf("join queue %s: %w", queue, err)
	}
	m.over, m.cancel = context.WithCancel(context.Background())
	m.drained, m.drain = context.WithCancel(m.over)
	m.done.Go(m.listen)
	m.done.Go(m.keepUp)
	if err := b.open.Add(m); err != nil {
		m.End()
		return nil, err
	}
	return m, nil
}

// listen passes on that something has changed, or may have while the
// connection was away.
func (m *member) listen() {
	for event := range m.heard.events {
		if e, ok := event.(*goredis.Message); ok && e.Payload == m.queue {
			m.beat() // it was deleted
		}
		m.wake()
	}
}

// keepUp tells that the member is there, also while it is busy with what it
// holds.
func (m *member) keepUp() {
	for {
		m.mu.Lock()
		every := min(heartbeat, lease(m.wait)/3)
		m.mu.Unlock()
		timer := time.NewTimer(every)
		select {
		case <-m.over.Done():
			timer.Stop()
			return
		case <-timer.C:
			m.beat()
			m.wake()
		}
	}
}

// beat takes nothing, but is seen, and brings a deleted queue back. Whoever
// receives finds out what is wrong.
func (m *member) beat() {
	ctx, cancel := context.WithTimeout(m.over, callTimeout)
	defer cancel()
	if _, gone, _ := m.ask(ctx, 0); gone {
		_ = m.broker.Declare(ctx, m.topic, m.queue, m.o.QueueOptions)
	}
	m.mu.Lock()
	late := !m.until.IsZero() && time.Now().After(m.until)
	m.mu.Unlock()
	if late {
		m.turn(time.Time{})
	}
}

func (m *member) wake() {
	select {
	case m.awake <- struct{}{}:
	default:
	}
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
		switch held, err := m.next(); {
		case err != nil:
			return nil, err
		case held != nil:
			return held, nil
		}
		select {
		case m.taking <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.drained.Done():
			return nil, broker.ErrClosed
		}
		err := m.fill(ctx)
		<-m.taking
		if err != nil {
			return nil, err
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
	return held, nil
}

// fill returns when there are messages in ready.
func (m *member) fill(ctx context.Context) error {
	for m.drained.Err() == nil {
		m.mu.Lock()
		there, room := len(m.ready) > 0 || m.lost, m.o.Prefetch-len(m.held)
		m.mu.Unlock()
		if there {
			return nil
		}
		wait := heartbeat
		if room > 0 {
			due, err := m.take(ctx, room)
			if err != nil {
				return err
			}
			m.mu.Lock()
			there = len(m.ready) > 0 || m.lost
			m.mu.Unlock()
			if there {
				return nil
			}
			if due >= 0 {
				wait = min(wait, due)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-m.awake:
		case <-timer.C:
		case <-ctx.Done():
		case <-m.drained.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return broker.ErrClosed
}

// take asks for up to n messages and puts them into ready; due is how long it
// is until there may be one that was given out already, negative for none.
func (m *member) take(ctx context.Context, n int) (due time.Duration, err error) {
	answer, gone, err := m.ask(ctx, n)
	if gone { // somebody has deleted it, or the server came back empty
		if err := m.broker.Declare(ctx, m.topic, m.queue, m.o.QueueOptions); err != nil {
			return 0, err
		}
		answer, gone, err = m.ask(ctx, n)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("receive from queue %s: %w", m.queue, full(err))
	case gone:
		return 0, broker.ErrNoQueue
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for rest := answer.messages; len(rest) >= 4; rest = rest[4:] {
		if err := m.hold(rest[:4], answer.wait); err != nil {
			m.uncertain = true
			return 0, err
		}
	}
	return answer.due, nil
}

// answer is what take.lua returns.
type answer struct {
	due, wait time.Duration
	messages  []any
}

// ask runs take.lua; gone means that there is no such queue. Only one at a time
// may ask for messages.
func (m *member) ask(ctx context.Context, n int) (a answer, gone bool, err error) {
	start, uncertain := time.Now(), 0
	call := 0
	if n > 0 {
		m.call++
		call = m.call
		if m.uncertain {
			uncertain = 1
		}
		m.uncertain = true
	}
	left, empty := m.left()
	values, err := m.broker.run(ctx, m.broker.scripts.take, []string{keys(m.topic)}, m.queue, m.name, n, uncertain, call, left, empty).Slice()
	if errors.Is(err, goredis.Nil) {
		m.turn(time.Time{})
		return a, true, nil
	}
	if err == nil && len(values) < 3 {
		err = errIncomplete
	}
	if err != nil {
		return a, false, err
	}
	numbers, err := integers(values[:3])
	if err != nil {
		return a, false, err
	}
	if n > 0 {
		m.uncertain = false
	}
	a = answer{due: milliseconds(numbers[0]), wait: milliseconds(numbers[1]), messages: values[3:]}
	m.mu.Lock()
	m.wait = a.wait
	m.mu.Unlock()
	switch numbers[2] {
	case 1:
		m.turn(start.Add(lease(a.wait)))
	case 0:
		m.turn(time.Time{})
	}
	return a, false, nil
}

// left is how many bytes of messages the member may take, -1 for any number,
// and 1 when it holds none.
func (m *member) left() (bytes, empty int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.held) == 0 {
		empty = 1
	}
	if m.o.PrefetchBytes <= 0 {
		return -1, empty
	}
	return max(m.o.PrefetchBytes-m.bytes, 0), empty
}

// lease is how long a member has the turn of an ordered queue without a sign
// of it, see take.lua.
func lease(wait time.Duration) time.Duration {
	return min(max(wait, 2*time.Second), 10*time.Second)
}

// turn notes until when the member may have messages; zero means that it may
// not, and what it has is lost.
func (m *member) turn(until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !until.IsZero() {
		if until.After(m.until) {
			m.until = until
		}
		return
	}
	if m.until.IsZero() {
		return
	}
	m.until, m.lost = time.Time{}, true
	for _, held := range m.held {
		held.Lose()
	}
	clear(m.held)
	m.ready, m.bytes = nil, 0
	m.wake()
}

// hold makes a Held of what take.lua tells of a message. m.mu is held.
func (m *member) hold(fields []any, wait time.Duration) error {
	id, _ := fields[0].(string)
	text, _ := fields[3].(string)
	numbers, err := integers(fields[1:3])
	at, ok := timeOf(id)
	if err != nil || !ok {
		return fmt.Errorf("receive from queue %s: the server's answer is no message: %.100q", m.queue, fields)
	}
	message, err := decode([]byte(text))
	if err != nil {
		m.broker.log.Debug("broker: a message is taken as a body without a header", "topic", m.topic, "id", id, "error", err)
	}
	h := &holding{member: m, id: id, delivery: numbers[0], size: len(text)}
	held := broker.Hold(broker.Stored{
		Delivery: broker.Delivery{Topic: m.topic, Message: message}, ID: id, At: at,
	}, int(numbers[1]), wait, h)
	m.held[h] = held
	m.bytes += h.size
	m.ready = append(m.ready, held)
	return nil
}

// free forgets a message that is not held any more.
func (m *member) free(h *holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	held, ok := m.held[h]
	if !ok {
		return
	}
	delete(m.held, h)
	m.bytes -= h.size
	for i, other := range m.ready {
		if other == held {
			m.ready = append(m.ready[:i:i], m.ready[i+1:]...)
			break
		}
	}
	m.wake()
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

// Drain implements [broker.Member].
func (m *member) Drain(ctx context.Context) error {
	m.drain()
	select {
	case m.taking <- struct{}{}: // nobody is at it
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	waiting := m.ready
	m.ready = nil
	m.mu.Unlock()
	<-m.taking
	return held.ReturnAll(ctx, waiting)
}

// Close implements [broker.Member].
func (m *member) Close(ctx context.Context) error {
	m.broker.open.Drop(m)
	drained := m.Drain(ctx)
	again := m.over.Err() != nil
	m.stop()
	if again {
		return drained
	}
	m.mu.Lock()
	all := make([]*broker.Held, 0, len(m.held))
	for _, held := range m.held {
		all = append(all, held)
	}
	m.mu.Unlock()
	return errors.Join(drained, held.ReturnAll(ctx, all),
		m.broker.run(ctx, m.broker.scripts.part, []string{keys(m.topic)}, m.queue, m.name).Err())
}

// stop ends what runs for the member.
func (m *member) stop() {
	m.cancel()
	m.heard.end()
	m.done.Wait()
}

// End implements [openset.Ender].
func (m *member) End() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		m.broker.log.Debug("broker: messages are given back when their time is over", "queue", m.queue, "error", err)
	}
}
