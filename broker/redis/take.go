package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
)

// fill returns when there are messages in ready.
func (m *member) fill(ctx context.Context) error {
	for m.drained.Err() == nil {
		m.mu.Lock()
		there, room := m.ready.Any(), m.o.Prefetch-len(m.held)
		m.mu.Unlock()
		if there {
			return nil
		}
		wait := heartbeat
		if room > 0 {
			due, err := m.take(ctx, room)
			if err != nil {
				return err
			}
			m.mu.Lock()
			there = m.ready.Any()
			m.mu.Unlock()
			if there {
				return nil
			}
			if due >= 0 {
				wait = min(wait, due)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-m.awake:
		case <-timer.C:
		case <-ctx.Done():
		case <-m.drained.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return broker.ErrClosed
}

// take asks for up to n messages and puts them into ready; due is how long it
// is until there may be one that was given out already, negative for none.
func (m *member) take(ctx context.Context, n int) (due time.Duration, err error) {
	due, gone, err := m.ask(ctx, n)
	if gone { // somebody has deleted it, or the server came back empty
		if err := m.broker.Declare(ctx, m.topic, m.queue, m.o.QueueOptions); err != nil {
			return 0, err
		}
		due, gone, err = m.ask(ctx, n)
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("receive from queue %s: %w", m.queue, full(err))
	case gone:
		return 0, broker.ErrNoQueue
	}
	return due, nil
}

// ask runs take.lua; gone means that there is no such queue. Only one at a time
// may ask for messages.
func (m *member) ask(ctx context.Context, n int) (due time.Duration, gone bool, err error) {
	start := time.Now()
	args, turns := m.question(n)
	values, err := m.broker.run(ctx, m.broker.scripts.take, []string{keys(m.topic)}, args...).Slice()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	if errors.Is(err, goredis.Nil) {
		m.lose()
		return 0, true, nil
	}
	if err == nil && len(values) < 3 {
		err = errIncomplete
	}
	if err != nil {
		return 0, false, err
	}
	numbers, err := integers(values[:3])
	if err != nil {
		return 0, false, err
	}
	wait := milliseconds(numbers[1])
	switch lease := milliseconds(numbers[2]); {
	case lease > 0:
		m.prolong(start, lease)
	case lease == 0:
		m.lose()
	}
	if n == 0 || turns != m.turns { // what was given belongs to a turn that is over
		return milliseconds(numbers[0]), false, nil
	}
	for rest := values[3:]; len(rest) >= 4; rest = rest[4:] {
		if err := m.hold(rest[:4], wait); err != nil {
			return 0, false, err
		}
	}
	m.uncertain = false
	return milliseconds(numbers[0]), false, nil
}

// question is what take.lua is told, and how many turns were lost before.
func (m *member) question(n int) (args []any, turns int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bytes, empty := m.left()
	if n == 0 {
		return []any{m.queue, m.name, 0, bytes, empty, 0, 0}, m.turns
	}
	m.call++
	if !m.uncertain {
		m.uncertain = true // until the answer is here
		return []any{m.queue, m.name, n, bytes, empty, m.call, 0}, m.turns
	}
	args = []any{m.queue, m.name, n, bytes, empty, m.call, 1}
	for h := range m.held {
		args = append(args, h.id)
	}
	return args, m.turns
}

// left is how many bytes of messages the member may take, -1 for any number,
// and 1 when it holds none. m.mu is held.
func (m *member) left() (bytes, empty int) {
	if len(m.held) == 0 {
		empty = 1
	}
	if m.o.PrefetchBytes <= 0 {
		return -1, empty
	}
	return max(m.o.PrefetchBytes-m.bytes, 0), empty
}

// hold makes a Held of what take.lua tells of a message. m.mu is held.
func (m *member) hold(fields []any, wait time.Duration) error {
	id, _ := fields[0].(string)
	if size, ok := fields[3].(int64); ok {
		m.broker.log.Warn("broker: what is no message was dropped: it is larger than any", "topic", m.topic, "queue", m.queue, "id", id, "bytes", size)
		return nil
	}
	text, _ := fields[3].(string)
	numbers, err := integers(fields[1:3])
	at, ok := timeOf(id)
	if err != nil || !ok {
		return fmt.Errorf("receive from queue %s: the server's answer is no message: %.100q", m.queue, fields)
	}
	message, err := decode([]byte(text))
	if err != nil {
		m.broker.log.Debug("broker: a message is taken as a body without a header", "topic", m.topic, "id", id, "error", err)
	}
	h := &holding{member: m, id: id, delivery: numbers[0], size: len(text), turn: !m.until.IsZero()}
	held := broker.Hold(broker.Stored{
		Delivery: broker.Delivery{Topic: m.topic, Message: message}, ID: id, At: at,
	}, int(numbers[1]), wait, h)
	m.held[h] = held
	m.bytes += h.size
	m.ready.Add(held)
	return nil
}
