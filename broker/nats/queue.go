package nats

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engine/token"
)

// A durable queue is a durable pull consumer of the stream. Its name is made
// of topic and queue; its metadata hold them as they are.
const (
	metaTopic = "micro-topic"
	metaQueue = "micro-queue"
	// maxWaiting bounds the requests of all members that wait at the server.
	maxWaiting = 4096
	// maxName is the longest consumer name that every file system takes.
	maxName = 200
)

// consumerName names the consumer of a queue: "=a" stands between two tokens
// and is part of none, so that different pairs have different names.
func consumerName(topic, queue string) string {
	name := token.Encode(queue) + "=a" + token.Encode(topic)
	if len(name) > maxName {
		return token.Digest(name)
	}
	return name
}

// Declare implements [broker.Durable].
func (b *Broker) Declare(ctx context.Context, topic, queue string, o broker.QueueOptions) error {
	if _, err := b.declare(ctx, topic, queue, o); err != nil {
		return fmt.Errorf("declare queue %q of topic %q: %w", queue, topic, err)
	}
	return nil
}

// declare returns the consumer as it is then.
func (b *Broker) declare(ctx context.Context, topic, queue string, o broker.QueueOptions) (*jetstream.ConsumerInfo, error) {
	switch {
	case topic == "":
		return nil, errors.New("the topic is empty")
	case queue == "":
		return nil, errors.New("a durable queue needs a name")
	case b.isClosed():
		return nil, broker.ErrClosed
	case b.live:
		return nil, noStreams()
	}
	return link.Again(ctx, b.link, func(ctx context.Context) (*jetstream.ConsumerInfo, error) {
		info, err := b.declareOnce(ctx, topic, queue, o)
		if errors.Is(err, jetstream.ErrStreamNotFound) { // somebody has removed it
			if _, err := b.open(ctx); err != nil {
				return nil, err
			}
			info, err = b.declareOnce(ctx, topic, queue, o)
		}
		return info, err
	})
}

func (b *Broker) declareOnce(ctx context.Context, topic, queue string, o broker.QueueOptions) (*jetstream.ConsumerInfo, error) {
	if err := b.cover(ctx, b.filter(topic)); err != nil {
		return nil, err
	}
	name := consumerName(topic, queue)
	have, err := b.js.Consumer(ctx, b.o.Stream, name)
	switch {
	case err == nil:
		info := have.CachedInfo()
		want := refine(info.Config, o)
		if sameQueue(want, info.Config) {
			return info, nil
		}
		updated, err := b.js.UpdateConsumer(ctx, b.o.Stream, want)
		if err != nil {
			return nil, err
		}
		return updated.CachedInfo(), nil
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return nil, err
	}
	if err := b.openState(ctx); err != nil {
		return nil, err
	}
	created, err := b.js.CreateConsumer(ctx, b.o.Stream, refine(jetstream.ConsumerConfig{
		Name:          name,
		Durable:       name,
		FilterSubject: b.filter(topic),
		DeliverPolicy: jetstream.DeliverNewPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       broker.DefaultAckWait,
		MaxAckPending: -1,
		MaxDeliver:    -1,
		MaxWaiting:    maxWaiting,
		Metadata:      map[string]string{metaTopic: url.QueryEscape(topic), metaQueue: url.QueryEscape(queue)},
	}, o))
	if errors.Is(err, jetstream.ErrConsumerExists) { // another process was quicker, with options of its own
		return b.declareOnce(ctx, topic, queue, o)
	}
	if err != nil {
		return nil, err
	}
	b.o.Log.Info("a durable queue begins here: messages are kept for it from now on", "topic", topic, "queue", queue)
	return created.CachedInfo(), nil
}

// refine puts the options into a consumer's configuration.
func refine(c jetstream.ConsumerConfig, o broker.QueueOptions) jetstream.ConsumerConfig {
	if o.AckWait > 0 {
		c.AckWait = o.AckWait
	}
	switch {
	case o.MaxInFlight > 0:
		c.MaxAckPending = o.MaxInFlight
	case o.MaxInFlight < 0:
		c.MaxAckPending = -1
	}
	switch {
	case o.Expires > 0:
		c.InactiveThreshold = o.Expires
	case o.Expires < 0:
		c.InactiveThreshold = 0
	}
	return c
}

func sameQueue(a, b jetstream.ConsumerConfig) bool {
	return a.AckWait == b.AckWait && a.MaxAckPending == b.MaxAckPending && a.InactiveThreshold == b.InactiveThreshold
}

// PublishOnce implements [broker.Deduplicator].
func (b *Broker) PublishOnce(ctx context.Context, topic, id string, m broker.Message) error {
	if b.published.has(topic, id) {
		return nil // live subscribers, too, shall get it once
	}
	if err := b.publish(ctx, topic, id, m); err != nil {
		return err
	}
	b.published.add(topic, id)
	return nil
}
