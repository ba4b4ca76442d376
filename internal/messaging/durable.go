package messaging

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
)

// durable returns the broker as one that keeps messages, or why it is none.
func (m *Messaging) durable() (broker.Durable, error) {
	if m.o.NotDurable != "" {
		return nil, fmt.Errorf("durable messaging: %s: %w", m.o.NotDurable, errors.ErrUnsupported)
	}
	d, ok := m.o.Broker.(broker.Durable)
	if !ok {
		return nil, fmt.Errorf("durable messaging: the %s broker keeps no messages: %w", m.name(), errors.ErrUnsupported)
	}
	return d, nil
}

// name is what the broker is called in sentences.
func (m *Messaging) name() string {
	if m.o.Name == "" {
		return "configured"
	}
	return m.o.Name
}

// checkPattern says why a topic cannot be had of the broker: it is a pattern, and
// the broker has none.
func (m *Messaging) checkPattern(d broker.Durable, topic string) error {
	if _, ok := d.(broker.Wildcards); !ok && IsPattern(topic) {
		return fmt.Errorf("topic %s: the %s broker has no wildcards: %w", topic, m.name(), errors.ErrUnsupported)
	}
	return nil
}

// serveDurable serves a subscriber that acknowledges what it gets.
func (m *Messaging) serveDurable(w http.ResponseWriter, r *http.Request, c *connection) error {
	d, err := m.durable()
	if err != nil {
		return refusal(err)
	}
	if err := m.checkPattern(d, c.topic); err != nil {
		return refusal(err)
	}
	share, give := m.allowance.take(m.o.MaxBuffered)
	defer give()
	ctx, cancel := context.WithTimeout(r.Context(), m.o.Timeout)
	defer cancel()
	member, err := d.Join(ctx, c.topic, c.queue, broker.JoinOptions{
		QueueOptions: broker.QueueOptions{AckWait: c.ackWait, Expires: c.expires},
		Prefetch:     c.prefetch, PrefetchBytes: int(share),
	})
	if err != nil {
		return refusal(err)
	}
	// A frame that publishes holds its body in base64, and a header.
	if err := c.accept(w, r, m.o.MaxBodySize*4/3+maxHeaderSize+1<<10); err != nil {
		m.leaveQueue(member)
		return err
	}
	s := &session{connection: c, member: member, held: map[string]*broker.Held{}}
	m.durables.enter(s)
	defer m.durables.leave(s)
	m.log.Debug("durable subscriber connected", "topic", c.topic, "queue", c.queue, "remote", r.RemoteAddr)
	end := c.run(s.leave, s.write, s.received)
	m.log.Debug("durable subscriber gone", "topic", c.topic, "queue", c.queue, "remote", r.RemoteAddr, "reason", end.reason)
	return nil
}

// leaveQueue closes a member. What cannot be returned comes again when its
// time is over.
func (m *Messaging) leaveQueue(member broker.Member) {
	ctx, cancel := context.WithTimeout(context.Background(), m.o.Timeout)
	defer cancel()
	if err := member.Close(ctx); err != nil {
		m.log.Warn("messages could not be given back: they come again when their time is over", "error", err)
	}
}

// The fields that a dead letter has beside those of the message.
const (
	deadPrefix        = "Micro-Dead-"
	deadTopicField    = deadPrefix + "Topic"    // what the message was published to
	deadQueueField    = deadPrefix + "Queue"    // whose members failed
	deadIDField       = deadPrefix + "Id"       // its ID there
	deadReasonField   = deadPrefix + "Reason"   // a sentence
	deadAttemptsField = deadPrefix + "Attempts" // a number
	deadFirstField    = deadPrefix + "First"    // when it was stored, RFC 3339
	deadLastField     = deadPrefix + "Last"     // when it was given up
)

// DeadQueue is the durable queue that keeps the dead letters of a topic.
const DeadQueue = "dead"

// DeadTopic is where the dead letters of a topic go unless something else is said.
func DeadTopic(topic string) string { return topic + broker.DeadSuffix }

// passedOver tells the messages that are none of a queue's business. Without
// the rule about dead letters ([broker.DeadSuffix]) two queues of patterns would
// bury a message for ever, each what the other has given up.
func passedOver(h *broker.Held, topic, queue string) bool {
	if internal(h.Topic, topic) || !forThisQueue(h.Header, queue) {
		return true
	}
	by, dead := h.Header[deadQueueField]
	if !dead || !IsPattern(topic) {
		return false
	}
	return by == queue || strings.HasSuffix(h.Topic, broker.DeadSuffix) && !strings.HasSuffix(topic, broker.DeadSuffix)
}

// bury stores a message as a dead letter and only then acknowledges it.
func (m *Messaging) bury(ctx context.Context, d broker.Durable, h *broker.Held, queue, topic, reason string) error {
	if topic == "" {
		topic = DeadTopic(h.Topic)
	}
	reason = clip(reason)
	// Each time: a queue that somebody has deleted would let it fall.
	if err := d.Declare(ctx, topic, DeadQueue, broker.QueueOptions{}); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	id := "dead " + queue + " " + h.Topic + " " + h.ID
	err := publishOnce(ctx, d, topic, id, letterOf(h, queue, reason, h.Header))
	if errors.Is(err, broker.ErrTooLarge) && len(h.Header) > 0 { // it just fitted without our fields
		err = publishOnce(ctx, d, topic, id, letterOf(h, queue, reason+"; its header had no room here and is left out", nil))
	}
	if err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	m.buried.Add(1)
	m.log.Warn("dead letter", "topic", h.Topic, "queue", queue, "id", h.ID, "attempts", h.Attempt, "reason", reason, "to", topic)
	return h.Ack(ctx) //nolint:wrapcheck // the callers say what they did
}

// letterOf is the dead letter that a message becomes.
func letterOf(h *broker.Held, queue, reason string, header map[string]string) broker.Message {
	letter := broker.Message{Header: make(map[string]string, len(header)+7), Body: h.Body}
	maps.Copy(letter.Header, header)
	maps.Copy(letter.Header, map[string]string{
		deadTopicField: h.Topic, deadQueueField: queue, deadIDField: h.ID, deadReasonField: reason,
		deadAttemptsField: fmt.Sprint(h.Attempt),
		deadFirstField:    h.At.UTC().Format(time.RFC3339Nano),
		deadLastField:     time.Now().UTC().Format(time.RFC3339Nano),
	})
	return letter
}

// publishOnce publishes with an ID when the broker can tell it again.
func publishOnce(ctx context.Context, b broker.Broker, topic, id string, m broker.Message) error {
	if once, ok := b.(broker.Deduplicator); ok && id != "" {
		return once.PublishOnce(ctx, topic, id, m) //nolint:wrapcheck // it says what it did
	}
	return b.Publish(ctx, topic, m) //nolint:wrapcheck // it says what it did
}
