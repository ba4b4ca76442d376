package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine/link"
)

const (
	// forgetful is how long before its end a server may have taken an
	// acknowledgement and not have written it down.
	forgetful = 10 * time.Second
	// maxAcks bounds how many acknowledgements a member keeps in case of that.
	maxAcks = 4096
)

// acks are the latest acknowledgements of a member. An acknowledgement is not
// answered. Those that were on their way to a server that ends, or that it had
// taken and not written down, are said again to the one that takes its place.
// There an acknowledgement of what is acknowledged means nothing. Members of an
// ordered queue do without: theirs would be about messages that the next one has.
type acks struct {
	mu   sync.Mutex
	said []said // a ring, once it is full
	next int
}

// said is an acknowledgement.
type said struct {
	reply string
	at    time.Time
}

func (a *acks) note(reply string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	one := said{reply, time.Now()}
	if len(a.said) < maxAcks {
		a.said = append(a.said, one)
		return
	}
	a.said[a.next] = one
	a.next = (a.next + 1) % maxAcks
}

// since returns where to say what was acknowledged since then.
func (a *acks) since(t time.Time) (replies []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.said {
		if one.at.After(t) {
			replies = append(replies, one.reply)
		}
	}
	return replies
}

// repeatAcks says the latest acknowledgements again whenever the connection was
// lost and the queue can be asked again, until the member is closed.
func (m *member) repeatAcks() {
	for {
		lost, err := m.broker.link.Wait(m.ended)
		if err != nil {
			return
		}
		select {
		case <-lost:
		case <-m.ended.Done():
			return
		}
		from := time.Now().Add(-forgetful)
		if !m.awaitSame() {
			continue
		}
		// Those of the time between are among them: a server may be reached before
		// its queues are open.
		for _, reply := range m.acks.since(from) {
			if err := m.broker.conn.Publish(reply, []byte(ack)); err != nil {
				break // it comes again when its time is over
			}
		}
	}
}

// awaitSame returns when the queue can be asked, and reports that it is the one
// that the member has joined: to another of its name, or in another stream, the
// numbers of what was acknowledged would mean other messages.
func (m *member) awaitSame() bool {
	for m.ended.Err() == nil {
		same, err := link.Again(m.ended, m.broker.link, m.isSame)
		if err == nil {
			return same
		}
		if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			return false
		}
		pause(m.ended, retry)
	}
	return false
}

func (m *member) isSame(ctx context.Context) (bool, error) {
	consumer, err := m.broker.js.Consumer(ctx, m.broker.o.Stream, m.consumer)
	if err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return consumer.CachedInfo().Created.Equal(m.created), nil
}
