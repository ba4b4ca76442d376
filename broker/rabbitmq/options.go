package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// A client cannot ask RabbitMQ for the options of a queue, and some of ours
// mean nothing to it: a second queue, micro.options:…, holds one message that
// tells them. Who looks at it or changes it holds the third, micro.lock:…,
// which is exclusive and goes with him.

const (
	// The options of a queue that expires do the same, later; a member keeps
	// them from that.
	optionsOutlive = 24 * time.Hour
	optionsTouched = 6 * time.Hour
)

// agree makes sure that the queue is there and has the options o, and fills in
// what o leaves open.
func (b *Broker) agree(ctx context.Context, q *durableQueue, o broker.QueueOptions) error {
	select {
	case b.declaring <- struct{}{}: // the lock is our connection's
		defer func() { <-b.declaring }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ch, unlock, err := b.lock(ctx, q.name)
	if err != nil {
		return err
	}
	defer unlock()
	exists, err := b.exists(ctx, q.name)
	if err != nil {
		return err
	}
	known, err := b.exists(ctx, q.optionsName())
	if err != nil {
		return err
	}
	fresh, err := bound.Call(ctx, func() (fresh bool, err error) {
		var old broker.QueueOptions
		var last *amqp.Delivery
		switch {
		case known && exists:
			old, last, err = q.readOptions(ch)
		case known: // what is left of one that is gone
			_, err = ch.QueueDelete(q.optionsName(), false, false, false)
		}
		if err != nil {
			return false, err
		}
		q.options = merge(old, o)
		if last != nil && (q.bounded() != (old.MaxInFlight > 0) || q.options.Expires != old.Expires) {
			return false, fmt.Errorf("RabbitMQ cannot change Expires, nor whether MaxInFlight is bounded, of a queue that is there: it has to be deleted before (%s): %w", q.name, errors.ErrUnsupported)
		}
		if last == nil || q.options != old {
			return last == nil, b.writeOptions(ctx, *q, last)
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if err := b.make(ctx, q); err != nil || !fresh {
		return err
	}
	return b.enroll(ctx, q.topic, q.label)
}

// lock returns the only channel of all that has the name's lock, and what
// frees it.
func (b *Broker) lock(ctx context.Context, name string) (*amqp.Channel, func(), error) {
	name = "micro.lock" + name[len(durableKind):]
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		_, ch, err := b.consuming.channel(ctx)
		if err != nil {
			return nil, nil, err
		}
		_, err = bound.Call(ctx, func() (amqp.Queue, error) { return ch.QueueDeclare(name, false, true, true, false, nil) })
		unlock := func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			_, _ = bound.Call(ctx, func() (any, error) { // what fails has gone with its connection
				_, _ = ch.QueueDelete(name, false, false, false)
				return nil, ch.Close()
			})
		}
		if err == nil {
			return ch, unlock, nil
		}
		if e, ok := errors.AsType[*amqp.Error](err); !ok || e.Code != amqp.ResourceLocked {
			go unlock()
			return nil, nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// exists tells whether the server has a queue.
func (b *Broker) exists(ctx context.Context, name string) (bool, error) {
	_, ch, err := b.consuming.channel(ctx)
	if err != nil {
		return false, err
	}
	defer func() { go func() { _ = ch.Close() }() }() // its answer is of no interest
	_, err = bound.Call(ctx, func() (amqp.Queue, error) { return ch.QueueDeclarePassive(name, true, false, false, false, nil) })
	// A classic queue is also not found while its node is away.
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound && strings.Contains(e.Reason, "no queue ") {
		return false, nil
	}
	return err == nil, err
}

// options is how they are written, times in ms.
type options struct {
	AckWait, MaxInFlight, Expires int64
}

// declareOptions declares the queue that keeps the options.
func (b *Broker) declareOptions(ctx context.Context, d durableQueue) error {
	args := amqp.Table{}
	if d.options.Expires > 0 {
		args[amqp.QueueTTLArg] = (d.options.Expires + optionsOutlive).Milliseconds()
	}
	_, err := b.declareQueue(ctx, d.optionsName(), d.kind, "", args)
	return err
}

func (d durableQueue) optionsName() string { return "micro.options" + d.name[len(durableKind):] }

// readOptions returns what was written last and its message, nil for none. The
// message comes back to its queue with the end of the channel.
func (d durableQueue) readOptions(ch *amqp.Channel) (o broker.QueueOptions, last *amqp.Delivery, err error) {
	for {
		m, ok, err := ch.Get(d.optionsName(), false)
		if err != nil || !ok {
			return o, last, err
		}
		var read options
		if err := json.Unmarshal(m.Body, &read); err != nil {
			return o, nil, fmt.Errorf("queue %s holds what is none of ours: %w", d.optionsName(), err)
		}
		o = broker.QueueOptions{
			AckWait: time.Duration(read.AckWait) * time.Millisecond, MaxInFlight: int(read.MaxInFlight),
			Expires: time.Duration(read.Expires) * time.Millisecond,
		}
		last = &m
	}
}

// writeOptions replaces what was written before.
func (b *Broker) writeOptions(ctx context.Context, q durableQueue, last *amqp.Delivery) error {
	if err := b.declareOptions(ctx, q); err != nil {
		return err
	}
	text, err := json.Marshal(options{q.options.AckWait.Milliseconds(), int64(q.options.MaxInFlight), q.options.Expires.Milliseconds()})
	if err != nil {
		return err
	}
	if err := b.publisher.send(ctx, "", q.optionsName(), amqp.Publishing{Body: text, DeliveryMode: amqp.Persistent}); err != nil {
		return err
	}
	if last == nil {
		return nil
	}
	return last.Ack(true)
}
