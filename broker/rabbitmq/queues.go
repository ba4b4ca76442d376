package rabbitmq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// AMQP cannot list queues: one more, micro.queues, has a message for each of
// ours. Who looks into a queue takes its messages and gives them back, under
// the queue's lock, so that two who look do not take them from each other.

const (
	indexName = durableKind + ".queues"
	// maxLook is how many messages of a queue are looked at.
	maxLook = 10_000
)

// entry is how a queue is written into the index, names as they are.
type entry struct{ Topic, Queue []byte }

// locked runs f with the lock of a queue and the channel that has it.
func (b *Broker) locked(ctx context.Context, name string, f func(ch *amqp.Channel) error) error {
	select {
	case b.declaring <- struct{}{}: // the lock is our connection's
		defer func() { <-b.declaring }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if b.open.Closed() {
		return broker.ErrClosed
	}
	return b.underLock(ctx, name, f)
}

// underLock is locked for who has declaring already.
func (b *Broker) underLock(ctx context.Context, name string, f func(ch *amqp.Channel) error) error {
	ch, unlock, err := b.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = bound.Call(ctx, func() (any, error) { return nil, f(ch) })
	return err
}

// looked is a message that was taken to look at it.
type looked struct {
	amqp.Delivery
	acked bool
}

// ack takes it out of the queue.
func (l *looked) ack() error {
	l.acked = true
	return l.Ack(false)
}

// look takes the messages of a queue one after the other and shows them to see
// until that says that it is enough, and gives back what see has not
// acknowledged. It takes them all: what is given back comes behind the others in
// a quorum queue, so that only all of them stay in order.
func look(ch *amqp.Channel, name string, see func(d *looked) (enough bool, err error)) error {
	var t taking
	var seen error
	for enough := false; len(t) < maxLook; {
		d, ok, err := ch.Get(name, false)
		if err != nil {
			return err // with the channel all goes back
		}
		if !ok {
			break
		}
		one := &looked{Delivery: d}
		if !enough {
			enough, seen = see(one)
			enough = enough || seen != nil
		}
		if !one.acked {
			t = append(t, d.DeliveryTag)
		}
	}
	return errors.Join(seen, t.giveBack(ch, name))
}

// taking are the deliveries of a channel that took them to look at them.
type taking []uint64

// giveBack gives them back to their queue. It has them a moment later, and until
// then seems to be empty; that is waited for.
func (t taking) giveBack(ch *amqp.Channel, name string) error {
	if len(t) == 0 {
		return nil
	}
	state, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		return err
	}
	for _, tag := range t {
		if err := ch.Reject(tag, true); err != nil {
			return err
		}
	}
	return await(ch, name, state.Messages+len(t))
}

// settleTime is how long a queue is waited for that has yet to take back what
// was given back to it. When it has members these may be quicker.
const settleTime = time.Second

// await returns when so many messages wait in a queue, or the time is over.
func await(ch *amqp.Channel, name string, want int) error {
	deadline := time.Now().Add(settleTime)
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		state, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil || state.Messages >= want || time.Now().After(deadline) {
			return err
		}
		<-time.After(pause)
	}
}

// declareIndex makes sure that the index is there.
func (b *Broker) declareIndex(ctx context.Context) error {
	_, err := b.declareQueue(ctx, indexName, b.address.kind, "", amqp.Table{})
	return err
}

// enroll writes a queue into the index, unless it is there. The caller has
// declaring.
func (b *Broker) enroll(ctx context.Context, topic, queue string) error {
	text, err := json.Marshal(entry{[]byte(topic), []byte(queue)})
	if err != nil {
		return err
	}
	return b.underLock(ctx, indexName, func(ch *amqp.Channel) error {
		if err := b.declareIndex(ctx); err != nil {
			return err
		}
		known := false
		err := look(ch, indexName, func(d *looked) (bool, error) {
			known = string(d.Body) == string(text)
			return known, nil
		})
		if err != nil || known {
			return err
		}
		return b.publisher.send(ctx, "", indexName, amqp.Publishing{Body: text, DeliveryMode: amqp.Persistent})
	})
}

// enrolled returns the names in the index of queues that exist, and strikes out
// the others.
func (b *Broker) enrolled(ctx context.Context) (all []durableQueue, err error) {
	err = b.locked(ctx, indexName, func(ch *amqp.Channel) error {
		if err := b.declareIndex(ctx); err != nil {
			return err
		}
		return look(ch, indexName, func(d *looked) (bool, error) {
			var e entry
			if json.Unmarshal(d.Body, &e) != nil {
				return false, nil // it is none of ours
			}
			q := durableQueue{topic: string(e.Topic), label: string(e.Queue), name: queueName(durableKind, string(e.Topic), string(e.Queue))}
			there, err := b.exists(ctx, q.name)
			switch {
			case err != nil:
				return false, err
			case !there:
				return false, d.ack()
			}
			all = append(all, q)
			return false, nil
		})
	})
	return all, err
}

// Queues implements [broker.Queues].
func (b *Broker) Queues(ctx context.Context) ([]broker.QueueInfo, error) {
	names, err := b.enrolled(ctx)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	var all []broker.QueueInfo
	for _, q := range names {
		info, err := b.Queue(ctx, q.topic, q.label)
		if errors.Is(err, broker.ErrNoQueue) { // it has just gone
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	slices.SortFunc(all, func(x, y broker.QueueInfo) int {
		return cmp.Or(cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Queue, y.Queue))
	})
	return all, nil
}

// Queue implements [broker.Queues]. RabbitMQ tells neither what members hold
// nor how old the messages are.
func (b *Broker) Queue(ctx context.Context, topic, queue string) (broker.QueueInfo, error) {
	q := durableQueue{topic: topic, name: queueName(durableKind, topic, queue)}
	info := broker.QueueInfo{Topic: topic, Queue: queue}
	err := b.locked(ctx, q.name, func(ch *amqp.Channel) error {
		known, err := b.exists(ctx, q.optionsName())
		if err != nil {
			return err
		}
		var o broker.QueueOptions
		if known {
			w, err := q.readOptions(ch)
			if err != nil {
				return err
			}
			if err := w.giveBack(ch, q.optionsName()); err != nil {
				return absent(err)
			}
			o = w.options
		}
		o = merge(o, broker.QueueOptions{})
		state, err := ch.QueueDeclarePassive(q.name, true, false, false, false, nil)
		if err != nil {
			return absent(err)
		}
		info.Lag, info.Members = state.Messages, state.Consumers
		info.AckWait, info.MaxInFlight, info.Expires = o.AckWait, o.MaxInFlight, o.Expires
		if info.Members > 0 {
			info.LastSeen = time.Now()
		}
		return nil
	})
	if err != nil {
		return info, fmt.Errorf("queue %s: %w", queue, err)
	}
	return info, nil
}

// absent tells a queue that does not exist.
func absent(err error) error {
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound {
		return broker.ErrNoQueue
	}
	return err
}

// Purge implements [broker.Queues]. What members hold stays with them.
func (b *Broker) Purge(ctx context.Context, topic, queue string) (n int, err error) {
	name := queueName(durableKind, topic, queue)
	err = b.locked(ctx, name, func(ch *amqp.Channel) (err error) {
		n, err = ch.QueuePurge(name, false)
		return absent(err)
	})
	if err != nil {
		return 0, fmt.Errorf("purge queue %s: %w", queue, err)
	}
	return n, nil
}

// Delete implements [broker.Queues]. The index notices at the next list.
func (b *Broker) Delete(ctx context.Context, topic, queue string) error {
	q := durableQueue{topic: topic, name: queueName(durableKind, topic, queue)}
	err := b.locked(ctx, q.name, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclarePassive(q.name, true, false, false, false, nil); err != nil {
			return absent(err)
		}
		for _, name := range []string{q.name, q.optionsName()} {
			if _, err := ch.QueueDelete(name, false, false, false); err != nil {
				return absent(err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete queue %s: %w", queue, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, q.name)
	return nil
}

// Browse implements [broker.Queues]. It looks at the oldest messages only, and
// begins with the first when the one with the ID after is none of them. What a
// member holds is not seen.
func (b *Broker) Browse(ctx context.Context, topic, queue, after string, limit int) ([]broker.Stored, error) {
	name := queueName(durableKind, topic, queue)
	var before, all []broker.Stored // in front of after, and behind it
	found := after == ""
	err := b.locked(ctx, name, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err != nil {
			return absent(err)
		}
		return look(ch, name, func(d *looked) (bool, error) {
			stored := readStored(d.Delivery)
			switch {
			case found:
				all = append(all, stored)
			case stored.ID == after:
				found = true
			case len(before) < limit:
				before = append(before, stored)
			}
			return len(all) >= limit, ctx.Err()
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look into queue %s: %w", queue, err)
	}
	if !found {
		return before, nil
	}
	return all, nil
}

// Remove implements [broker.Queues].
func (b *Broker) Remove(ctx context.Context, topic, queue, id string) error {
	name := queueName(durableKind, topic, queue)
	found := false
	err := b.locked(ctx, name, func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclarePassive(name, true, false, false, false, nil); err != nil {
			return absent(err)
		}
		return look(ch, name, func(d *looked) (bool, error) {
			if found = readStored(d.Delivery).ID == id; found {
				return true, d.ack()
			}
			return false, ctx.Err()
		})
	})
	switch {
	case err != nil:
		return fmt.Errorf("queue %s: remove %s: %w", queue, id, err)
	case !found:
		return fmt.Errorf("queue %s: remove %s: %w", queue, id, broker.ErrNoMessage)
	}
	return nil
}
