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
