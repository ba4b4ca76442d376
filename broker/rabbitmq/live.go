package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
	"github.com/micro/sidecar/broker/internal/mailbox"
)

// What waits for a slow handler; what comes on top is lost and told.
const (
	waitingMessages = 1 << 16
	waitingBytes    = 64 << 20
)

// subscription is live: it has a queue that goes with it, or with the last one
// that shares it.
type subscription struct {
	broker *Broker
	topic  string
	queue  string
	box    *mailbox.Box
	over   context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing more is put into the box
	once   sync.Once
}

// source is where a consumer gets its messages for as long as its channel
// lives.
type source struct {
	channel    *amqp.Channel
	tag        string // the consumer's
	deliveries <-chan amqp.Delivery
}

const consumerTag = "micro" // its channel has no other

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
	s := &subscription{broker: b, topic: topic, queue: o.Queue, done: make(chan struct{})}
	src, err := s.consume(ctx)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	s.over, s.cancel = context.WithCancel(context.Background())
	s.box = mailbox.New(h, mailbox.Limits{Messages: waitingMessages, Bytes: waitingBytes})
	go s.run(src)
	if err := b.open.Add(s); err != nil {
		s.End()
		return nil, err
	}
	return s, nil
}

// consume declares the queue and begins to receive from it. A shared queue may
// go with its last member at any moment until we are one.
func (s *subscription) consume(ctx context.Context) (src source, err error) {
	for range 5 {
		_, ch, err := s.broker.consuming.channel(ctx)
		if err != nil {
			return src, err
		}
		src, err = bound.Call(ctx, func() (source, error) { return s.begin(ch) })
		if err == nil {
			return src, nil
		}
		go func() { _ = ch.Close() }() // it has gone already, or its answer is of no interest
		if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.NotFound {
			return src, err
		}
	}
	return src, err
}

func (s *subscription) begin(ch *amqp.Channel) (source, error) {
	args := amqp.Table{"x-max-length": int64(waitingMessages), "x-max-length-bytes": int64(waitingBytes)}
	name := ""
	if s.queue != "" {
		name = queueName("micro.live", s.topic, s.queue)
	}
	q, err := ch.QueueDeclare(name, false, true, name == "", false, args)
	if err != nil {
		return source{}, err
	}
	if err := ch.QueueBind(q.Name, bindingKey(s.topic), s.broker.address.durable(), false, nil); err != nil {
		return source{}, err
	}
	deliveries, err := ch.Consume(q.Name, consumerTag, true, false, false, false, nil)
	return source{ch, consumerTag, deliveries}, err
}

// run runs until the subscription is closed.
func (s *subscription) run(src source) {
	defer close(s.done)
	for {
		s.receive(src)
		src.leave()
		var ok bool
		if src, ok = again(s.over, s.broker, s.consume); !ok {
			return
		}
	}
}

// receive returns when the channel has gone, or the subscription is over.
func (s *subscription) receive(src source) {
	for {
		select {
		case <-s.over.Done():
			return
		case d, ok := <-src.deliveries:
			if !ok {
				return
			}
			if !s.box.Put(decode(d)) {
				s.broker.log.Warn("broker: a message was lost to a subscriber that is too slow", "topic", s.topic)
			}
		}
	}
}

// leave tells the server that nothing more is wanted, and returns when it
// knows.
func (src source) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	// What fails has gone with its channel.
	_, _ = bound.Call(ctx, func() (any, error) {
		_ = src.channel.Cancel(src.tag, false)
		return nil, src.channel.Close()
	})
}

// again begins anew until that works, and more slowly each time; false means
// that it is over.
func again(over context.Context, b *Broker, begin func(context.Context) (source, error)) (source, bool) {
	const slowest = 2 * time.Second
	for pause := 50 * time.Millisecond; over.Err() == nil; pause = min(2*pause, slowest) {
		ctx, cancel := context.WithTimeout(over, 2*dialTimeout)
		src, err := begin(ctx)
		cancel()
		if err == nil {
			return src, true
		}
		if over.Err() == nil {
			b.log.Debug("broker: a subscriber waits for the server", "error", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-over.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return source{}, false
}

// Close implements [broker.Subscription].
func (s *subscription) Close() error {
	s.broker.open.Drop(s)
	s.End()
	return nil
}

// End implements [openset.Ender].
func (s *subscription) End() {
	s.once.Do(s.cancel)
	<-s.done
	s.box.Close()
}
