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
	if known && !exists { // what is left of one that is gone
		known = false
		if _, err := bound.Call(ctx, func() (int, error) { return ch.QueueDelete(q.optionsName(), false, false, false) }); err != nil {
			return err
		}
	}
	fresh, err := bound.Call(ctx, func() (fresh bool, err error) {
		if known {
			return b.amend(ctx, ch, q, o)
		}
		q.options = merge(broker.QueueOptions{}, o)
		return true, b.writeOptions(ctx, *q)
	})
	if err != nil {
		return err
	}
	if err := b.make(ctx, q); err != nil || !fresh {
		return err
	}
	return b.enroll(ctx, q.topic, q.label)
}

// amend is agree for a queue that has its options, unless they were lost.
func (b *Broker) amend(ctx context.Context, ch *amqp.Channel, q *durableQueue, o broker.QueueOptions) (lost bool, err error) {
	old, err := q.readOptions(ch)
	if err != nil {
		return false, err
	}
	lost = len(old.taking) == 0
	q.options = merge(old.options, o)
	switch {
	case !lost && (q.bounded() != (old.options.MaxInFlight > 0) || q.options.Expires != old.options.Expires):
		err = fmt.Errorf("RabbitMQ cannot change Expires, nor whether MaxInFlight is bounded, of a queue that is there: it has to be deleted before (%s): %w", q.name, errors.ErrUnsupported)
	case lost || q.options != old.options:
		if err = b.writeOptions(ctx, *q); err == nil && !lost {
			err = old.last.Ack(true)
			old.taking = nil
		}
	}
	return lost, errors.Join(err, old.giveBack(ch, q.optionsName()))
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
	_, there, err := b.inspect(ctx, name)
	return there, err
}

// inspect returns how a queue is, and whether the server has it.
func (b *Broker) inspect(ctx context.Context, name string) (state amqp.Queue, there bool, err error) {
	_, ch, err := b.consuming.channel(ctx)
	if err != nil {
		return state, false, err
	}
	defer func() { go func() { _ = ch.Close() }() }() // its answer is of no interest
	state, err = bound.Call(ctx, func() (amqp.Queue, error) { return ch.QueueDeclarePassive(name, true, false, false, false, nil) })
	// A classic queue is also not found while its node is away.
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.NotFound && strings.Contains(e.Reason, "no queue ") {
		return state, false, nil
	}
	return state, err == nil, err
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

func (q durableQueue) optionsName() string { return "micro.options" + q.name[len(durableKind):] }

// written is what a queue of options holds: one message, or several when
// somebody was killed between writing and acknowledging.
type written struct {
	taking
	options broker.QueueOptions // of the last
	last    amqp.Delivery
}

// readOptions takes what was written. The caller gives it back, or acknowledges
// it when there is something newer.
func (q durableQueue) readOptions(ch *amqp.Channel) (w written, err error) {
	// Who looked before may have been killed: then it is back in a moment.
	if err := await(ch, q.optionsName(), 1); err != nil {
		return w, err
	}
	for {
		m, ok, err := ch.Get(q.optionsName(), false)
		if err != nil || !ok {
			return w, err // an error ends the channel
		}
		w.taking = append(w.taking, m.DeliveryTag)
		w.last = m
		var read options
		if err := json.Unmarshal(m.Body, &read); err != nil {
			err = fmt.Errorf("queue %s holds what is none of ours: %w", q.optionsName(), err)
			return w, errors.Join(err, w.giveBack(ch, q.optionsName()))
		}
		w.options = broker.QueueOptions{
			AckWait: time.Duration(read.AckWait) * time.Millisecond, MaxInFlight: int(read.MaxInFlight),
			Expires: time.Duration(read.Expires) * time.Millisecond,
		}
	}
}

// writeOptions writes them behind what was written before.
func (b *Broker) writeOptions(ctx context.Context, q durableQueue) error {
	if err := b.declareOptions(ctx, q); err != nil {
		return err
	}
	text, err := json.Marshal(options{q.options.AckWait.Milliseconds(), int64(q.options.MaxInFlight), q.options.Expires.Milliseconds()})
	if err != nil {
		return err
	}
	return b.publisher.send(ctx, "", q.optionsName(), amqp.Publishing{Body: text, DeliveryMode: amqp.Persistent})
}
