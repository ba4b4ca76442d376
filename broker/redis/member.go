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

	mu    sync.Mutex
	ready held.Ready
	held  map[*holding]*broker.Held
	bytes int // of held
	call  int // counts those that take
	// The server may have given us what we do not know of, or the other way
	// round: an answer got lost, or a turn.
	uncertain bool

	// Of an ordered queue.
	until  time.Time     // when another may have the turn; zero while we have none
	lease  time.Duration // for how long we get it
	turns  int           // counts those that were lost
	expiry *time.Timer   // looks at until
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
	m.expiry = time.AfterFunc(time.Hour, m.expire)
	var err error
	if m.heard, err = b.listen(ctx, keys(topic)+"wake", 1); err != nil {
		m.expiry.Stop()
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
		every := heartbeat
		if m.lease > 0 {
			every = min(every, m.lease/3)
		}
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
	m.look()
	return m.ready.Take()
}

// fill returns when there are messages in ready.
func (m *member) fill(ctx context.Context) error {
	for m.drained.Err() == nil {
		m.mu.Lock()
		there, room := m.ready.Any(), m.o.Prefetch-len(m.held)
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
			there = m.ready.Any()
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
	due, gone, err := m.ask(ctx, n)
	if gone { // somebody has deleted it, or the server came back empty
		if err := m.broker.Declare(ctx, m.topic, m.queue, m.o.QueueOptions); err != nil {
			return 0, err
		}
		due, gone, err = m.ask(ctx, n)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("receive from queue %s: %w", m.queue, full(err))
	case gone:
		return 0, broker.ErrNoQueue
	}
	return due, nil
}

// ask runs take.lua; gone means that there is no such queue. Only one at a time
// may ask for messages.
func (m *member) ask(ctx context.Context, n int) (due time.Duration, gone bool, err error) {
	start := time.Now()
	args, turns := m.question(n)
	values, err := m.broker.run(ctx, m.broker.scripts.take, []string{keys(m.topic)}, args...).Slice()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	if errors.Is(err, goredis.Nil) {
		m.lose()
		return 0, true, nil
	}
	if err == nil && len(values) < 3 {
		err = errIncomplete
	}
	if err != nil {
		return 0, false, err
	}
	numbers, err := integers(values[:3])
	if err != nil {
		return 0, false, err
	}
	wait := milliseconds(numbers[1])
	switch lease := milliseconds(numbers[2]); {
	case lease > 0:
		m.prolong(start, lease)
	case lease == 0:
		m.lose()
	}
	if n == 0 || turns != m.turns { // what was given belongs to a turn that is over
		return milliseconds(numbers[0]), false, nil
	}
	for rest := values[3:]; len(rest) >= 4; rest = rest[4:] {
		if err := m.hold(rest[:4], wait); err != nil {
			return 0, false, err
		}
	}
	m.uncertain = false
	return milliseconds(numbers[0]), false, nil
}

// question is what take.lua is told, and how many turns were lost before.
func (m *member) question(n int) (args []any, turns int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes, empty := m.left()
	if n == 0 {
		return []any{m.queue, m.name, 0, bytes, empty, 0, 0}, m.turns
	}
	m.call++
	if !m.uncertain {
		m.uncertain = true // until the answer is here
		return []any{m.queue, m.name, n, bytes, empty, m.call, 0}, m.turns
	}
	args = []any{m.queue, m.name, n, bytes, empty, m.call, 1}
	for h := range m.held {
		args = append(args, h.id)
	}
	return args, m.turns
}

// left is how many bytes of messages the member may take, -1 for any number,
// and 1 when it holds none. m.mu is held.
func (m *member) left() (bytes, empty int) {
	if len(m.held) == 0 {
		empty = 1
	}
	if m.o.PrefetchBytes <= 0 {
		return -1, empty
	}
	return max(m.o.PrefetchBytes-m.bytes, 0), empty
}

// prolong notes that the member has the turn for so long from start on, less
// a fifth: whoever has the next one shall find our requests ended. m.mu is held.
func (m *member) prolong(start time.Time, lease time.Duration) {
	m.lease = lease
	if until := start.Add(lease - lease/5); until.After(m.until) {
		m.until = until
		m.expiry.Reset(time.Until(until))
	}
}

// expire is called when the turn may be over.
func (m *member) expire() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
}

// look finds out whether the turn is over by our clock: then it is, whatever the
// server says later. m.mu is held.
func (m *member) look() {
	if !m.until.IsZero() && !time.Now().Before(m.until) {
		m.lose()
	}
}

// lose ends the turn, if we have it, and what is held with it. m.mu is held.
func (m *member) lose() {
	if m.until.IsZero() {
		return
	}
	m.until, m.uncertain = time.Time{}, true
	m.turns++
	for _, held := range m.held {
		held.Lose()
	}
	clear(m.held)
	m.bytes = 0
	m.ready.Lose()
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
	h := &holding{member: m, id: id, delivery: numbers[0], size: len(text), turn: !m.until.IsZero()}
	held := broker.Hold(broker.Stored{
		Delivery: broker.Delivery{Topic: m.topic, Message: message}, ID: id, At: at,
	}, int(numbers[1]), wait, h)
	m.held[h] = held
	m.bytes += h.size
	m.ready.Add(held)
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
	m.ready.Drop(held)
	m.wake()
}

// Next implements [broker.Eager].
func (m *member) Next() (*broker.Held, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	if m.drained.Err() != nil {
		return nil, false
	}
	return m.ready.Next()
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
	waiting := m.ready.Clear()
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
	returned := held.ReturnAll(ctx, all)
	for _, held := range all {
		held.Lose() // what could not be returned: the turn goes with the member
	}
	return errors.Join(drained, returned,
		m.broker.run(ctx, m.broker.scripts.part, []string{keys(m.topic)}, m.queue, m.name).Err())
}

// stop ends what runs for the member.
func (m *member) stop() {
	m.cancel()
	m.heard.end()
	m.done.Wait()
	m.expiry.Stop()
}

// End implements [openset.Ender].
func (m *member) End() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		m.broker.log.Debug("broker: messages are given back when their time is over", "queue", m.queue, "error", err)
	}
}
