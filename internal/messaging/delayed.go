package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

// A message that is to be delivered later waits in a durable queue of its own.
// Every sidecar is a member there: whoever gets the message gives it back until
// its time has come, and then publishes it to its topic.
const (
	delayedTopic = "micro.delayed"
	delayedQueue = "micro"

	delayedToField    = "Micro-Delayed-Topic"
	delayedUntilField = "Micro-Delayed-Until" // RFC 3339
)

// delayedPrefetch is how many messages a sidecar looks at at a time.
const delayedPrefetch = 64

// internal tells messages that a pattern matches and that are nobody's
// business: those that wait for their time.
func internal(topic, subscribed string) bool {
	return topic == delayedTopic && subscribed != delayedTopic
}

// onlyQueueField names the one queue that a message is for: a dead letter that
// is tried again is no news to the other queues of its topic, nor to live
// subscribers.
const onlyQueueField = "Micro-Only-Queue"

func forThisQueue(header map[string]string, queue string) bool {
	only, ok := header[onlyQueueField]
	return !ok || only == queue
}

// IsPattern tells that a topic stands for several on brokers with wildcards.
func IsPattern(topic string) bool {
	parts := strings.Split(topic, ".")
	return slices.Contains(parts, "*") || parts[len(parts)-1] == ">"
}

// PublishOptions refine Publish. The zero value publishes at once.
type PublishOptions struct {
	// ID makes a repetition within two minutes no second message, on brokers
	// that can tell; "" is none.
	ID string
	// Delay is how long the message waits; it needs a durable broker.
	Delay time.Duration
	// NotDurable, when set, says why the broker's durable abilities must not
	// be used.
	NotDurable string
}

// Publish publishes a message for somebody: fields of its header that only
// sidecars may set are left out. What the broker cannot do is an error that
// wraps [errors.ErrUnsupported].
func Publish(ctx context.Context, b broker.Broker, topic string, m broker.Message, o PublishOptions) error {
	m.Header = withoutOurs(m.Header)
	if o.Delay <= 0 {
		return publishOnce(ctx, b, topic, o.ID, m)
	}
	d, ok := b.(broker.Durable)
	switch {
	case topic == "":
		return errors.New("publish: the topic is empty")
	case o.NotDurable != "":
		return fmt.Errorf("a delay: %s: %w", o.NotDurable, errors.ErrUnsupported)
	case !ok:
		return fmt.Errorf("a delay: the broker keeps no messages: %w", errors.ErrUnsupported)
	}
	if err := d.Declare(ctx, delayedTopic, delayedQueue, broker.QueueOptions{}); err != nil {
		return fmt.Errorf("publish later: %w", err)
	}
	waiting := broker.Message{Header: maps.Clone(m.Header), Body: m.Body}
	if waiting.Header == nil {
		waiting.Header = map[string]string{}
	}
	waiting.Header[delayedToField] = topic
	waiting.Header[delayedUntilField] = time.Now().Add(o.Delay).UTC().Format(time.RFC3339Nano)
	id := o.ID
	if id != "" {
		id = topic + "\x00" + id
	}
	if err := publishOnce(ctx, d, delayedTopic, id, waiting); err != nil {
		return fmt.Errorf("publish later: %w", err)
	}
	return nil
}

// RunDelayed publishes messages whose time has come, until ctx ends. It does
// nothing on a broker that is not durable.
func (m *Messaging) RunDelayed(ctx context.Context) {
	d, err := m.durable()
	if err != nil {
		return
	}
	member := m.joinPatiently(ctx, d, delayedTopic, delayedQueue, broker.JoinOptions{Prefetch: delayedPrefetch, PrefetchBytes: int(m.o.MaxBuffered)})
	if member == nil {
		return
	}
	defer m.leaveQueue(member)
	var busy sync.WaitGroup
	defer busy.Wait()
	for {
		h, err := member.Receive(ctx)
		if err != nil {
			return
		}
		busy.Go(func() { m.release(ctx, d, h) }) // the prefetch bounds them
	}
}

// release publishes a delayed message, or puts it off.
func (m *Messaging) release(ctx context.Context, d broker.Durable, h *broker.Held) {
	const again = time.Second // after a failure
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.o.Timeout)
	defer cancel()
	until, err := time.Parse(time.RFC3339Nano, h.Header[delayedUntilField])
	topic := h.Header[delayedToField]
	if err != nil || topic == "" {
		m.log.Warn("a delayed message that is none", "id", h.ID, "error", err)
		if err := m.bury(ctx, d, h, delayedQueue, "", "it does not say when or where it is to be published"); err != nil {
			m.log.Warn("delayed message", "error", err)
		}
		return
	}
	if rest := time.Until(until); rest > 0 {
		m.settled(h.Nack(ctx, rest))
		return
	}
	out := broker.Message{Header: maps.Clone(h.Header), Body: h.Body}
	delete(out.Header, delayedToField)
	delete(out.Header, delayedUntilField)
	if err := publishOnce(ctx, d, topic, "delayed "+h.ID+" "+h.Header[delayedUntilField], out); err != nil {
		m.log.Warn("a delayed message could not be published; trying again", "topic", topic, "error", err)
		m.settled(h.Nack(ctx, again))
		return
	}
	m.settled(h.Ack(ctx))
}

// settled logs what kept a message from being settled. It comes again.
func (m *Messaging) settled(err error) {
	if err != nil {
		m.log.Log(context.Background(), slog.LevelDebug, "a message could not be settled; it comes again", "error", err)
	}
}

// joinPatiently joins a queue, however long the engine is away. It is nil when
// ctx ended first.
func (m *Messaging) joinPatiently(ctx context.Context, d broker.Durable, topic, queue string, o broker.JoinOptions) broker.Member {
	const every = time.Second
	for told := false; ; {
		joining, cancel := context.WithTimeout(ctx, m.o.Timeout)
		member, err := d.Join(joining, topic, queue, o)
		cancel()
		if err == nil {
			return member
		}
		if ctx.Err() != nil || errors.Is(err, broker.ErrClosed) {
			return nil
		}
		if !told {
			told = true
			m.log.Warn("a durable queue cannot be joined; trying on", "topic", topic, "queue", queue, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}
