package nats

import (
	"context"
	"fmt"
	"strconv"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// holding implements [broker.Holding] for one delivery.
type holding struct {
	member   *member
	reply    string // the subject that acknowledges
	stored   broker.Stored
	returned int // how often the message was given back without counting
	held     *broker.Held

	seq    uint64 // in the stream
	number uint64 // of the delivery, among those of the queue
	size   int    // in bytes
	slot   bool   // it has one of the member's
	lost   bool   // forgotten, with all the member had

	extended time.Time // while it is collected
}

// open reads a delivery.
func (m *member) open(msg *gonats.Msg) (h *holding, attempt int, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, 0, err
	}
	message, err := m.broker.decode(msg.Header, msg.Data)
	if err != nil {
		m.broker.o.Log.Warn("broker: a message's header cannot be read", "topic", m.topic, "error", err)
	}
	h = &holding{member: m, reply: msg.Reply, seq: meta.Sequence.Stream, number: meta.Sequence.Consumer, size: msg.Size(), stored: broker.Stored{
		ID: strconv.FormatUint(meta.Sequence.Stream, 10),
		At: meta.Timestamp,
		Delivery: broker.Delivery{
			Topic:   m.broker.topicOf(m.topic, m.exact, msg.Subject, msg.Header),
			Message: message,
		},
	}}
	if meta.NumDelivered > 1 {
		h.returned = m.returnedBefore(h.stored.ID, int(meta.NumDelivered)-1)
	}
	return h, max(int(meta.NumDelivered)-h.returned, 1), nil
}

// returnedBefore is how often a message was given back without counting. When
// that cannot be known it is all the times before: better one attempt too many
// than a good message among the dead.
func (m *member) returnedBefore(id string, before int) int {
	m.mu.Lock()
	wait, blind := m.wait, time.Now().Before(m.blind)
	m.mu.Unlock()
	if blind {
		return before
	}
	// A member that leaves gives back what still comes, and so has to know, too.
	ctx, cancel := context.WithTimeout(context.Background(), min(wait/4, time.Second))
	defer cancel()
	value, _, err := m.broker.state(ctx, m.broker.returnedSubject(m.consumer, id))
	times := 0
	if err == nil && value != "" {
		times, err = strconv.Atoi(value)
	}
	if err != nil {
		m.broker.o.Log.Warn("broker: the attempts at a message cannot be counted", "topic", m.topic, "queue", m.queue, "id", id, "error", err)
		m.mu.Lock()
		m.blind = time.Now().Add(time.Second) // others shall not wait for the same
		m.mu.Unlock()
		return before
	}
	return times
}

// Ack implements [broker.Holding].
func (h *holding) Ack(ctx context.Context) error {
	return h.say(ctx, "+ACK", true)
}

// Nack implements [broker.Holding].
func (h *holding) Nack(ctx context.Context, delay time.Duration) error {
	return h.say(ctx, nak(delay), true)
}

// Return implements [broker.Holding]. NATS counts every delivery, so the
// return is noted first.
func (h *holding) Return(ctx context.Context) error {
	b := h.member.broker
	if err := b.setState(ctx, b.returnedSubject(h.member.consumer, h.stored.ID), strconv.Itoa(h.returned+1)); err != nil {
		return fmt.Errorf("note that the message was given back: %w", err)
	}
	return h.say(ctx, nak(0), true)
}

// Extend implements [broker.Holding].
func (h *holding) Extend(ctx context.Context) error { return h.say(ctx, "+WPI", false) }

// Lapse implements [broker.Holding]: the server notices by itself.
func (h *holding) Lapse() { h.free() }

// Ours implements [broker.Fenced].
func (h *holding) Ours() bool {
	t := h.member.turn
	return t == nil || t.ours()
}

func nak(delay time.Duration) string {
	if delay <= 0 {
		return "-NAK"
	}
	return fmt.Sprintf(`-NAK {"delay":%d}`, delay.Nanoseconds())
}

// say sends word of the message to the server.
func (h *holding) say(ctx context.Context, word string, last bool) error {
	b := h.member.broker
	_, err := link.Once(ctx, b.link, func(context.Context) (struct{}, error) {
		return struct{}{}, b.conn.Publish(h.reply, []byte(word))
	})
	if err != nil {
		return err
	}
	if last {
		h.free()
	}
	return nil
}

// free makes room for another message.
func (h *holding) free() {
	m := h.member
	m.mu.Lock()
	if _, ok := m.holdings[h]; ok {
		delete(m.holdings, h)
		m.pull.appetite.settle(h.size)
		m.giveSlot(h)
	}
	m.mu.Unlock()
	if m.wants() {
		m.wake()
	}
}

// giveBack returns a delivery that came when nobody waited for it any more.
// What fails comes again when its time is over.
func (h *holding) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := h.Return(ctx); err != nil {
		h.member.broker.o.Log.Debug("broker: give back a message", "error", err)
	}
}
