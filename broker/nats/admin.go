package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// Queues implements [broker.Queues].
func (b *Broker) Queues(ctx context.Context) ([]broker.QueueInfo, error) {
	if b.live {
		return nil, noStreams()
	}
	all, err := link.Again(ctx, b.link, func(ctx context.Context) ([]broker.QueueInfo, error) {
		stream, err := b.js.Stream(ctx, b.o.Stream)
		if err != nil {
			return nil, err
		}
		var all []broker.QueueInfo
		list := stream.ListConsumers(ctx)
		var failed error
		for info := range list.Info() { // to its end: who leaves it leaves a goroutine, too
			q, ok, err := b.describe(ctx, stream, info)
			if err != nil {
				failed = err
			}
			if ok {
				all = append(all, q)
			}
		}
		return all, errors.Join(failed, list.Err())
	})
	if err != nil {
		return nil, fmt.Errorf("list the queues: %w", err)
	}
	slices.SortFunc(all, func(a, b broker.QueueInfo) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Queue, b.Queue))
	})
	return all, nil
}

// Queue implements [broker.Queues].
func (b *Broker) Queue(ctx context.Context, topic, queue string) (broker.QueueInfo, error) {
	q, err := link.Again(ctx, b.link, func(ctx context.Context) (broker.QueueInfo, error) {
		stream, info, err := b.lookUp(ctx, topic, queue)
		if err != nil {
			return broker.QueueInfo{}, err
		}
		q, _, err := b.describe(ctx, stream, info)
		return q, err
	})
	if err != nil {
		return q, fmt.Errorf("queue %q of topic %q: %w", queue, topic, err)
	}
	return q, nil
}

// lookUp finds a queue's stream and consumer, or ErrNoQueue.
func (b *Broker) lookUp(ctx context.Context, topic, queue string) (jetstream.Stream, *jetstream.ConsumerInfo, error) {
	if b.live {
		return nil, nil, noStreams()
	}
	stream, err := b.js.Stream(ctx, b.o.Stream)
	if err != nil {
		return nil, nil, err
	}
	consumer, err := stream.Consumer(ctx, consumerName(topic, queue))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil, nil, broker.ErrNoQueue
	}
	if err != nil {
		return nil, nil, err
	}
	return stream, consumer.CachedInfo(), nil
}

// describe is false for a consumer that is not one of ours.
func (b *Broker) describe(ctx context.Context, stream jetstream.Stream, info *jetstream.ConsumerInfo) (broker.QueueInfo, bool, error) {
	topic, err := url.QueryUnescape(info.Config.Metadata[metaTopic])
	if err != nil || topic == "" {
		return broker.QueueInfo{}, false, nil
	}
	queue, err := url.QueryUnescape(info.Config.Metadata[metaQueue])
	if err != nil || queue == "" {
		return broker.QueueInfo{}, false, nil
	}
	q := broker.QueueInfo{
		Topic: topic, Queue: queue,
		Lag: int(info.NumPending), Held: info.NumAckPending,
		AckWait: info.Config.AckWait, MaxInFlight: max(info.Config.MaxAckPending, 0), Expires: info.Config.InactiveThreshold,
	}
	var here bool
	if q.LastSeen, here, err = b.lastSeen(ctx, info); err != nil {
		return q, true, err
	}
	if here {
		q.Members = 1 // NATS tells requests that wait, not who made them
	}
	if q.Lag+q.Held > 0 {
		oldest, err := stream.GetMsg(ctx, info.AckFloor.Stream+1, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
		switch {
		case err == nil:
			q.Oldest = oldest.Time
		case !errors.Is(err, jetstream.ErrMsgNotFound): // it was acknowledged meanwhile
			return q, true, err
		}
	}
	return q, true, nil
}

// Purge implements [broker.Queues]. The consumer is made anew, because NATS
// cannot skip what one has not acknowledged.
func (b *Broker) Purge(ctx context.Context, topic, queue string) (int, error) {
	n, err := link.Again(ctx, b.link, func(ctx context.Context) (int, error) {
		_, info, err := b.lookUp(ctx, topic, queue)
		if err != nil {
			return 0, err
		}
		if err := b.deleteConsumer(ctx, info.Name); err != nil {
			return 0, err
		}
		_, err = b.declareOnce(ctx, topic, queue, broker.QueueOptions{
			AckWait: info.Config.AckWait, MaxInFlight: info.Config.MaxAckPending, Expires: info.Config.InactiveThreshold,
		})
		return int(info.NumPending) + info.NumAckPending, err
	})
	if err != nil {
		return 0, fmt.Errorf("purge queue %q of topic %q: %w", queue, topic, err)
	}
	return n, nil
}

// Delete implements [broker.Queues].
func (b *Broker) Delete(ctx context.Context, topic, queue string) error {
	_, err := link.Again(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		if b.live {
			return struct{}{}, noStreams()
		}
		return struct{}{}, b.deleteConsumer(ctx, consumerName(topic, queue))
	})
	if err != nil {
		return fmt.Errorf("delete queue %q of topic %q: %w", queue, topic, err)
	}
	return nil
}

// deleteConsumer removes a consumer and what is known of it.
func (b *Broker) deleteConsumer(ctx context.Context, name string) error {
	err := b.js.DeleteConsumer(ctx, b.o.Stream, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return broker.ErrNoQueue
	}
	if err != nil {
		return err
	}
	states, err := b.stateHandle(ctx)
	if err != nil {
		return err
	}
	return states.Purge(ctx, jetstream.WithPurgeSubject(b.o.Prefix+"-state."+name+".>"))
}

// Browse implements [broker.Queues].
func (b *Broker) Browse(ctx context.Context, topic, queue, after string, limit int) ([]broker.Stored, error) {
	all, err := link.Again(ctx, b.link, func(ctx context.Context) ([]broker.Stored, error) {
		stream, info, err := b.lookUp(ctx, topic, queue)
		if err != nil {
			return nil, err
		}
		next := info.AckFloor.Stream + 1
		if after != "" {
			seq, err := sequence(after)
			if err != nil {
				return nil, err
			}
			next = max(next, seq+1)
		}
		var all []broker.Stored
		for len(all) < limit && info.NumPending+uint64(info.NumAckPending) > 0 {
			raw, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(info.Config.FilterSubject))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return nil, err
			}
			all = append(all, b.stored(topic, raw))
			next = raw.Sequence + 1
		}
		return all, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look into queue %q of topic %q: %w", queue, topic, err)
	}
	return all, nil
}

// stored reads a message of the stream.
func (b *Broker) stored(topic string, raw *jetstream.RawStreamMsg) broker.Stored {
	message, _ := b.decode(raw.Subject, raw.Header, raw.Data) // what cannot be read is shown without
	return broker.Stored{
		ID: strconv.FormatUint(raw.Sequence, 10), At: raw.Time,
		Delivery: broker.Delivery{
			Topic:   b.topicOf(topic, b.exact(topic), raw.Subject, raw.Header),
			Message: message,
		},
	}
}

func sequence(id string) (uint64, error) {
	seq, err := strconv.ParseUint(id, 10, 64)
	if err != nil || seq == 0 {
		return 0, fmt.Errorf("%w: %q", broker.ErrNoMessage, id)
	}
	return seq, nil
}

// Remove implements [broker.Queues]. It takes the message out of the stream,
// which is only right when no other queue wants it.
func (b *Broker) Remove(ctx context.Context, topic, queue, id string) error {
	_, err := link.Again(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.remove(ctx, topic, queue, id)
	})
	if err != nil {
		return fmt.Errorf("remove message %s from queue %q of topic %q: %w", id, queue, topic, err)
	}
	return nil
}

// queueOf is what a consumer's queue is called.
func queueOf(info *jetstream.ConsumerInfo) string {
	if name, err := url.QueryUnescape(info.Config.Metadata[metaQueue]); err == nil && name != "" {
		return name
	}
	return info.Name
}

// wants tells whether a queue is one for messages of a subject. One of a pattern
// leaves dead letters to those that ask for them ([broker.DeadSuffix]).
func wants(filter, subject string) bool {
	pattern := strings.HasSuffix(filter, ">") || strings.Contains(filter, "*")
	if pattern && strings.HasSuffix(subject, broker.DeadSuffix) && !strings.HasSuffix(filter, broker.DeadSuffix) {
		return false
	}
	return matches(filter, subject)
}

func (b *Broker) remove(ctx context.Context, topic, queue, id string) error {
	seq, err := sequence(id)
	if err != nil {
		return err
	}
	stream, info, err := b.lookUp(ctx, topic, queue)
	if err != nil {
		return err
	}
	raw, err := stream.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && (!matches(info.Config.FilterSubject, raw.Subject) || seq <= info.AckFloor.Stream) {
		return broker.ErrNoMessage
	}
	if err != nil {
		return err
	}
	list := stream.ListConsumers(ctx)
	var shared error
	for other := range list.Info() {
		if other.Name != info.Name && seq > other.AckFloor.Stream && wants(other.Config.FilterSubject, raw.Subject) {
			shared = fmt.Errorf("queue %q of the topic has not had it yet, and would lose it: %w", queueOf(other), errors.ErrUnsupported)
		}
	}
	if err := errors.Join(list.Err(), shared); err != nil {
		return err
	}
	return stream.DeleteMsg(ctx, seq)
}
