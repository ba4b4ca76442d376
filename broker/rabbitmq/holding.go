package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// attemptHeader is how often a message was given out already, and once more,
// when it is not 1. RabbitMQ's own counts take no account of what was returned.
const attemptHeader = prefix + "attempt"

// item is a message that the server waits to hear of.
type item struct {
	intake   *intake
	request  *request // it takes room of until it is settled
	delivery amqp.Delivery
	stored   broker.Stored
	known    int // the attempt that the server's copy tells
	attempt  int // the next one, while it is delayed
	timer    *time.Timer
	told     bool // the server was told something
}

// item is newItem for a message that came over the intake.
func (in *intake) item(d amqp.Delivery) *item {
	it := newItem(in, d)
	it.request = in.request
	it.request.out.Add(1)
	return it
}

func newItem(in *intake, d amqp.Delivery) *item {
	it := &item{intake: in, delivery: d, known: 1, stored: readStored(d)}
	if n, err := strconv.Atoi(text(d.Headers[attemptHeader])); err == nil && n > 1 {
		it.known = n
	}
	it.attempt = it.known
	return it
}

// unnamed begins the IDs of messages that have none: those with the same body
// have the same.
const unnamed = "unnamed-"

// readStored reads a message of a durable queue.
func readStored(d amqp.Delivery) broker.Stored {
	s := broker.Stored{Delivery: decode(d), ID: d.MessageId, At: d.Timestamp}
	if s.ID == "" { // of a foreign publisher
		sum := sha256.Sum256(d.Body)
		s.ID = unnamed + hex.EncodeToString(sum[:16])
	}
	if s.At.IsZero() {
		s.At = time.Now()
	}
	return s
}

// stop ends its delay. The member's mu is held.
func (it *item) stop() {
	if it.timer != nil {
		it.timer.Stop()
	}
}

// tell tells the server something about the message, once: a second time would
// cost the channel. It does not matter whether that arrives, so that the end
// of ctx is no error once it is on its way.
func (it *item) tell(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if it.told {
		return nil
	}
	if it.intake.over.Err() != nil {
		return broker.ErrLapsed
	}
	it.told = true
	it.request.out.Add(-1)
	_, err := bound.Call(ctx, func() (any, error) { return nil, f() })
	if err != nil && ctx.Err() == nil {
		return broker.ErrLapsed // the channel has ended
	}
	return nil
}

// giveBack gives the message to the queue, where the server has it, or behind
// the others when the server's copy does not tell the attempt.
func (it *item) giveBack(ctx context.Context, m *member, attempt int) error {
	if attempt != it.known && !m.queue.bounded() && !it.told && it.intake.over.Err() == nil {
		if err := it.store(ctx, m, attempt); err == nil {
			return it.tell(ctx, func() error { return it.delivery.Ack(false) })
		} else if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return it.tell(ctx, func() error { return it.delivery.Reject(true) })
}

// store puts a copy into the queue that tells the attempt.
func (it *item) store(ctx context.Context, m *member, attempt int) error {
	d := it.delivery
	header := maps.Clone(d.Headers)
	if header == nil {
		header = amqp.Table{}
	}
	header[attemptHeader] = strconv.Itoa(attempt)
	header[topicHeader] = it.stored.Topic
	return m.broker.publisher.send(ctx, "", m.queue.name, amqp.Publishing{
		Headers: header, Body: d.Body, DeliveryMode: amqp.Persistent, MessageId: it.stored.ID, Timestamp: it.stored.At,
		ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
	})
}

// arrive offers a message that the server has delivered, or acknowledges it
// when it repeats another one.
func (m *member) arrive(it *item) {
	if !m.broker.repeats.has(m.queue.name, it) {
		m.offer(it, 0)
		return
	}
	m.done.Go(func() {
		ctx, cancel := context.WithTimeout(m.over, callTimeout)
		defer cancel()
		// What fails comes again.
		_ = it.tell(ctx, func() error { return it.delivery.Ack(false) })
		signal(m.retune)
	})
}

// offer puts the message into ready, to be given out; attempt 0 is the one
// that it came with. What comes to a drained member goes back.
func (m *member) offer(it *item, attempt int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enter(it, attempt)
}

// enter is offer for one who holds m.mu.
func (m *member) enter(it *item, attempt int) {
	if attempt == 0 {
		attempt = it.known
	}
	h := &holding{member: m, item: it, attempt: attempt}
	if it.intake.over.Err() != nil {
		return
	}
	if m.drained.Err() != nil {
		if !m.queue.bounded() { // else it goes back with the channel
			go h.back()
		}
		return
	}
	held := broker.Hold(it.stored, attempt, m.queue.options.AckWait, h)
	m.held[h] = held
	m.ready.Add(held)
	signal(m.awake)
}

// free forgets a message that is not held any more.
func (m *member) free(h *holding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave(h)
	if m.drained.Err() != nil || m.starving() {
		signal(m.retune)
	}
}

// leave is free for one who holds m.mu.
func (m *member) leave(h *holding) {
	held, ok := m.held[h]
	if !ok {
		return
	}
	delete(m.held, h)
	m.ready.Drop(held)
}

// again gives the message out again, in the place of what it was.
func (m *member) again(h *holding, attempt int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave(h)
	m.enter(h.item, attempt)
	signal(m.retune)
}

// holding implements [broker.Holding].
type holding struct {
	member  *member
	item    *item
	attempt int
}

func (h *holding) Ack(ctx context.Context) error {
	return h.settled(h.item.tell(ctx, func() error { return h.item.delivery.Ack(false) }))
}

// settled frees the message when the server was told.
func (h *holding) settled(err error) error {
	if err == nil {
		h.member.free(h)
	}
	if err != nil && !errors.Is(err, broker.ErrLapsed) {
		return fmt.Errorf("queue %s, message %s: %w", h.member.label, h.item.stored.ID, err)
	}
	return err
}

// Nack holds the message for the delay and gives it out again.
func (h *holding) Nack(ctx context.Context, delay time.Duration) error {
	if err := h.usable(ctx); err != nil {
		return err
	}
	m, it := h.member, h.item
	if delay == 0 {
		m.again(h, h.attempt+1)
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leave(h)
	it.attempt = h.attempt + 1
	m.delayed[it] = struct{}{}
	m.bytes += len(it.delivery.Body)
	it.timer = time.AfterFunc(delay, func() { m.due(it) })
	signal(m.retune)
	return nil
}

// due ends a delay.
func (m *member) due(it *item) {
	m.mu.Lock()
	_, there := m.delayed[it]
	delete(m.delayed, it)
	if there {
		m.bytes -= len(it.delivery.Body)
	}
	m.mu.Unlock()
	if there {
		m.offer(it, it.attempt)
		signal(m.retune)
	}
}

// Return gives the message to another member, but keeps it in its place in a
// queue with MaxInFlight.
func (h *holding) Return(ctx context.Context) error {
	if h.member.queue.bounded() {
		if err := h.usable(ctx); err != nil {
			return err
		}
		h.member.again(h, h.attempt)
		return nil
	}
	return h.settled(h.item.giveBack(ctx, h.member, h.attempt))
}

func (h *holding) Extend(ctx context.Context) error { return h.usable(ctx) }

// Lapse gives the message to any member: RabbitMQ does not know AckWait. In a
// queue with MaxInFlight it has to come before those behind it, so that all go
// back, with the turn.
func (h *holding) Lapse() {
	m := h.member
	m.mu.Lock()
	held, ok := m.held[h]
	given := ok && !m.ready.Has(held)
	m.mu.Unlock()
	if !ok {
		return
	}
	if m.queue.bounded() {
		_ = h.item.intake.channel.Close() // it fails only when it has ended
		return
	}
	m.free(h)
	if given {
		h.attempt++
	}
	h.back()
}

// back gives the message back in the background; what fails goes back with
// the channel.
func (h *holding) back() {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := h.item.giveBack(ctx, h.member, h.attempt); err != nil {
		h.member.broker.log.Debug("broker: a message goes back with its connection", "queue", h.member.label, "error", err)
	}
}

// usable tells that the message is still ours.
func (h *holding) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if h.item.intake.over.Err() != nil {
		return broker.ErrLapsed
	}
	return nil
}
