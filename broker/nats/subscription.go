package nats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engine/token"
)

const (
	// pendingMessages and pendingBytes bound what waits for a slow handler;
	// what comes on top is lost and logged. The largest message always fits.
	pendingMessages = 1 << 16
	pendingBytes    = 64 << 20
	// logInterval is the least time between two complaints of a subscription.
	logInterval = 10 * time.Second
)

// subscription implements [broker.Subscription].
type subscription struct {
	broker  *Broker
	topic   string
	handler broker.Handler
	sub     *gonats.Subscription
	exact   bool // every message's topic is topic

	mu       sync.Mutex // held while the handler runs
	closed   bool
	dropped  int // as told last
	lastTold time.Time
}

// Subscribe implements [broker.Broker]. After a change of the engine's host
// the subscription goes on by itself; what is published before it is back is
// not delivered.
func (b *Broker) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	if topic == "" {
		return nil, errors.New("subscribe: the topic is empty")
	}
	s := &subscription{broker: b, topic: topic, handler: h, exact: b.exact(topic)}
	if err := b.add(s); err != nil {
		return nil, err
	}
	// Twice is harmless: once made, the connection carries it to every host.
	_, err := link.Again(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		if err := s.start(token.Encode(o.Queue)); err != nil {
			return struct{}{}, err
		}
		// The server answers in order: it has the subscription by then.
		return struct{}{}, b.conn.FlushWithContext(ctx)
	})
	if err != nil {
		// A connection that is stuck may hold up the end; it needs no witness.
		go func() { _ = s.Close() }()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return s, nil
}

func (b *Broker) add(s *subscription) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subscriptions == nil {
		return broker.ErrClosed
	}
	b.subscriptions[s] = struct{}{}
	return nil
}

// start subscribes, unless that has been done or the subscription was closed.
func (s *subscription) start(queue string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return broker.ErrClosed
	case s.sub != nil:
		return nil
	}
	sub, err := s.broker.conn.QueueSubscribe(s.broker.filter(s.topic), queue, s.deliver)
	if err != nil {
		return err
	}
	s.sub = sub
	return sub.SetPendingLimits(pendingMessages, pendingBytes)
}

// deliver is called for one message after the other.
func (s *subscription) deliver(m *gonats.Msg) {
	if !s.exact && s.broker.foreign(m.Subject) {
		return
	}
	message, err := s.broker.decode(m.Subject, m.Header, m.Data)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.complain(err)
	topic := s.broker.topicOf(s.topic, s.exact, m.Subject, m.Header)
	s.handler(broker.Delivery{Topic: topic, Message: message})
}

// complain logs, now and then, what was lost and what was odd. s.mu is held.
func (s *subscription) complain(odd error) {
	dropped, _ := s.sub.Dropped() // it fails on a closed subscription only
	if (odd == nil && dropped <= s.dropped) || time.Since(s.lastTold) < logInterval {
		return
	}
	if odd != nil {
		s.broker.o.Log.Warn("broker: a message's header cannot be read", "topic", s.topic, "error", odd)
	}
	if dropped > s.dropped {
		s.broker.o.Log.Warn("broker: messages were lost to a subscriber that is too slow",
			"topic", s.topic, "lost", dropped-s.dropped)
	}
	s.dropped, s.lastTold = dropped, time.Now()
}

// Close implements [broker.Subscription]. It waits for a call of the handler
// that is running, so the handler itself must not call it.
func (s *subscription) Close() error {
	s.broker.mu.Lock()
	delete(s.broker.subscriptions, s)
	s.broker.mu.Unlock()
	s.end()
	return nil
}

func (s *subscription) end() {
	s.mu.Lock()
	sub, first := s.sub, !s.closed
	s.closed = true
	s.mu.Unlock()
	if first && sub != nil {
		// It fails when the connection is closed, and then there is nothing to end.
		_ = sub.Unsubscribe()
	}
}
