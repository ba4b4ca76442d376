package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/recent"
)

// RabbitMQ cannot look for an ID and store a message in one step. So a broker
// remembers the IDs that it has published, or is about to, and its members drop
// what comes under an ID that they have had. What is left are repetitions to
// another sidecar that come to members of different ones.

// once remembers what was published with an ID.
type once struct {
	mu sync.Mutex
	recent.Map[onceKey, attempt]
}

type onceKey struct{ topic, id string }

// attempt is a message that was sent, or is being.
type attempt struct {
	*sent
	at time.Time
}

// enter returns the message with the ID that is stored or may yet be, or a new
// one that the caller has to send.
func (o *once) enter(key onceKey) (s *sent, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a, ok := o.Get(key); ok && time.Since(a.at) < broker.OnceWithin {
		if stored, open := a.state(); stored || open {
			return a.sent, false
		}
	}
	s = newSent()
	o.Put(key, attempt{s, time.Now()})
	return s, true
}

// repeats remembers what members have had that was published with an ID.
type repeats struct {
	mu sync.Mutex
	recent.Map[repeatKey, original]
}

type repeatKey struct{ queue, topic, id string }

type original struct {
	message string // its ID in the queue
	at      time.Time
}

// repeatedWithin is less than [broker.OnceWithin], because it compares the
// clocks of two publishers.
const repeatedWithin = broker.OnceWithin / 2

// has tells that a member had the message before, under another ID of the
// queue's. It is no loss to drop it: that one is acknowledged, or comes again.
func (r *repeats) has(queue string, it *item) bool {
	id := text(it.delivery.Headers[onceHeader])
	if id == "" {
		return false
	}
	key, this := repeatKey{queue, it.stored.Topic, id}, original{it.stored.ID, it.stored.At}
	r.mu.Lock()
	defer r.mu.Unlock()
	if first, ok := r.Get(key); ok && this.at.Sub(first.at).Abs() < repeatedWithin {
		return first.message != this.message
	}
	r.Put(key, this)
	return false
}

// PublishOnce implements [broker.Deduplicator] as far as RabbitMQ allows: a
// repetition to the same broker is not stored, and one to another broker is
// stored, but dropped by a member that has had the first. Who repeats what is
// still under way waits for that.
func (b *Broker) PublishOnce(ctx context.Context, topic, id string, m broker.Message) error {
	if id == "" || strings.Contains(id, unnamed) { // that may name several messages
		return b.Publish(ctx, topic, m)
	}
	key, p, err := b.encode(topic, m)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	p.Headers[onceHeader] = id
	s, first := b.once.enter(onceKey{topic, id})
	if first {
		err = b.publisher.carry(ctx, s, b.publisher.exchange, key, p)
	} else {
		err = s.wait(ctx)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}
