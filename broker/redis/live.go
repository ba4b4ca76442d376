package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
	"github.com/micro/sidecar/broker/internal/mailbox"
)

// listener is a connection of its own that listens to one channel and comes
// back by itself.
type listener struct {
	sub    *goredis.PubSub
	events <-chan any // *Message, and *Subscription each time it listens anew
	end    func()     // idempotent
}

// listen returns when the server has confirmed.
func (b *Broker) listen(ctx context.Context, channel string, size int) (*listener, error) {
	sub := b.client.Subscribe(context.WithoutCancel(ctx))
	l := &listener{sub: sub, end: sync.OnceFunc(func() { _ = sub.Close() })} // nothing is lost with it
	if _, err := bound.Call(ctx, func() (any, error) { return nil, sub.Subscribe(ctx, channel) }); err != nil {
		l.end()
		return nil, err
	}
	l.events = sub.ChannelWithSubscriptions(goredis.WithChannelSize(size))
	var err error
	select {
	case event, ok := <-l.events:
		if _, confirmed := event.(*goredis.Subscription); ok && confirmed {
			return l, nil
		}
		err = errors.New("the server did not confirm the subscription")
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.end()
	return nil, err
}

// What waits for a slow handler; what comes on top is lost and told.
const (
	waitingMessages = 1 << 16
	waitingBytes    = 64 << 20
)

// subscription is live.
type subscription struct {
	broker *Broker
	topic  string
	queue  string
	member string // its name in the queue
	box    *mailbox.Box
	heard  *listener
	done   chan struct{} // closed when nothing more is put into the box
	once   sync.Once
}

// Subscribe implements [broker.Broker]. A subscription that has lost its
// connection comes back by itself; what is published until then is not
// delivered.
func (b *Broker) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	if topic == "" {
		return nil, errors.New("subscribe: the topic is empty")
	}
	if b.open.Closed() {
		return nil, broker.ErrClosed
	}
	s := &subscription{broker: b, topic: topic, queue: o.Queue, member: rand.Text(), done: make(chan struct{})}
	channel := keys(topic) + "live"
	if s.queue != "" {
		channel = keys(topic) + "to:" + s.member
	}
	var err error
	if s.heard, err = b.listen(ctx, channel, 256); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	s.box = mailbox.New(h, mailbox.Limits{Messages: waitingMessages, Bytes: waitingBytes})
	go s.receive()
	err = b.open.Add(s)
	if err == nil && s.queue != "" {
		err = s.enter(ctx)
	}
	if err != nil {
		b.open.Drop(s)
		s.End()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return s, nil
}

// enter makes the subscription a member of its queue.
func (s *subscription) enter(ctx context.Context) error {
	return s.broker.run(ctx, s.broker.scripts.enter, []string{keys(s.topic)}, s.queue, s.member).Err()
}

// receive runs until the listener has ended.
func (s *subscription) receive() {
	defer close(s.done)
	for event := range s.heard.events {
		switch e := event.(type) {
		case *goredis.Message:
			m, err := decode([]byte(e.Payload))
			if err != nil {
				s.broker.log.Debug("broker: a message is taken as a body without a header", "topic", s.topic, "error", err)
			}
			if !s.box.Put(broker.Delivery{Topic: s.topic, Message: m}) {
				s.broker.log.Warn("broker: a message was lost to a subscriber that is too slow", "topic", s.topic)
			}
		case *goredis.Subscription:
			if s.queue == "" || e.Kind != "subscribe" {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			if err := s.enter(ctx); err != nil {
				s.broker.log.Warn("broker: a subscriber could not enter its queue again", "topic", s.topic, "queue", s.queue, "error", err)
			}
			cancel()
		}
	}
}

// Close implements [broker.Subscription].
func (s *subscription) Close() error {
	s.broker.open.Drop(s)
	s.End()
	return nil
}

// End implements [openset.Ender].
func (s *subscription) End() {
	s.once.Do(func() {
		if s.queue != "" {
			// When this fails the first message finds out that nobody listens.
			ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
			_ = s.broker.run(ctx, s.broker.scripts.leave, []string{keys(s.topic)}, s.queue, s.member).Err()
			cancel()
		}
		s.heard.end()
	})
	<-s.done
	s.box.Close()
}
