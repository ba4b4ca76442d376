package gomicro

import (
	"context"
	"maps"
	"slices"
	"sync"

	micro "go-micro.dev/v5/broker"

	"github.com/micro/sidecar/broker"
)

// group is a subscription of go-micro's and those of ours that share it.
type group struct {
	at    address
	ready chan struct{} // closed when err and theirs are set
	gone  chan struct{} // closed when it was taken out

	err    error
	theirs micro.Subscriber

	mu      sync.Mutex
	members []*member
	next    int // of a queue: whose turn it is
	ended   bool
}

// start subscribes, for the first member.
func (g *group) start(ctx context.Context, b *BrokerAdapter) {
	var options []micro.SubscribeOption
	if g.at.queue != "" {
		options = append(options, micro.Queue(g.at.queue))
	}
	theirs, err := do(ctx, b.calls, "subscribe", func() (micro.Subscriber, error) {
		return b.theirs.Subscribe(g.at.topic, func(e micro.Event) error { g.deliver(b, e); return nil }, options...)
	}, func(s micro.Subscriber) { _ = s.Unsubscribe() }) // nobody waited for it
	g.theirs, g.err = theirs, err
	if err != nil {
		b.leave(g)
	}
	close(g.ready)
}

// deliver is go-micro's handler. It does not block.
func (g *group) deliver(b *BrokerAdapter, e micro.Event) {
	m := e.Message()
	// NATS takes the topic of a subscription for a pattern.
	if m == nil || e.Topic() != "" && e.Topic() != g.at.topic {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	to := g.members
	if g.at.queue != "" && len(to) > 0 {
		g.next = (g.next + 1) % len(to)
		to = to[g.next : g.next+1]
	}
	for _, s := range to {
		own := broker.Message{Header: maps.Clone(m.Header), Body: slices.Clone(m.Body)}
		if own.Header[topicName] == g.at.topic {
			delete(own.Header, topicName)
		}
		if !s.put(broker.Delivery{Message: own, Topic: g.at.topic}) {
			b.odd.warn(b.options.Log, "a slow subscriber lost a message", "topic", g.at.topic)
		}
	}
}

// add makes a subscription; nil when the group has ended.
func (g *group) add(b *BrokerAdapter, h broker.Handler) *member {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return nil
	}
	s := newMember(g, b, h)
	g.members = append(g.members, s)
	return s
}

// remove takes a member out; the last one ends the group.
func (g *group) remove(b *BrokerAdapter, s *member) error {
	g.mu.Lock()
	g.members = slices.DeleteFunc(g.members, func(other *member) bool { return other == s })
	last := len(g.members) == 0 && !g.ended
	if last {
		g.ended = true
	}
	g.mu.Unlock()
	if !last {
		return nil
	}
	defer b.leave(g)
	return g.unsubscribe(b)
}

// end closes all members of a group.
func (g *group) end(ctx context.Context, b *BrokerAdapter) error {
	select {
	case <-g.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	members, ended := g.members, g.ended
	g.members, g.ended = nil, true
	g.mu.Unlock()
	for _, s := range members {
		s.stop()
	}
	if ended || g.err != nil {
		return nil
	}
	return g.unsubscribe(b)
}

func (g *group) unsubscribe(b *BrokerAdapter) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := do(ctx, b.calls, "unsubscribe", func() (none struct{}, err error) { return none, g.theirs.Unsubscribe() }, nil)
	return err
}

// What waits behind a handler that is busy.
const (
	maxWaiting      = 1024
	maxWaitingBytes = 16 << 20
)

// member is one of our subscriptions: a queue, and a goroutine that calls the
// handler.
type member struct {
	group  *group
	broker *BrokerAdapter
	done   chan struct{} // closed when the goroutine has ended
	once   sync.Once
	err    error // of Close

	mu     sync.Mutex
	wake   sync.Cond
	queue  []broker.Delivery
	bytes  int
	closed bool
}

func newMember(g *group, b *BrokerAdapter, h broker.Handler) *member {
	s := &member{group: g, broker: b, done: make(chan struct{})}
	s.wake.L = &s.mu
	go s.run(h)
	return s
}

// put queues a delivery, or reports that there is no room.
func (s *member) put(d broker.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 && (len(s.queue) >= maxWaiting || s.bytes+len(d.Body) > maxWaitingBytes) {
		return false
	}
	if !s.closed {
		s.queue = append(s.queue, d)
		s.bytes += len(d.Body)
		s.wake.Signal()
	}
	return true
}

func (s *member) run(h broker.Handler) {
	defer close(s.done)
	for {
		s.mu.Lock()
		for len(s.queue) == 0 && !s.closed {
			s.wake.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		d := s.queue[0]
		s.queue[0] = broker.Delivery{} // let the body go
		s.queue = s.queue[1:]
		s.bytes -= len(d.Body)
		s.mu.Unlock()
		h(d)
	}
}

// stop ends the handler's calls and waits for the one under way.
func (s *member) stop() {
	s.mu.Lock()
	s.closed, s.queue = true, nil
	s.wake.Signal()
	s.mu.Unlock()
	<-s.done
}

// Close implements [broker.Subscription].
func (s *member) Close() error {
	s.once.Do(func() {
		s.err = s.group.remove(s.broker, s)
		s.stop()
	})
	return s.err
}
