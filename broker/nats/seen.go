package nats

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// What a member says of itself, every seenEvery.
const (
	memberHere = "here"
	memberGone = "gone"
	seenEvery  = time.Minute
)

// lastSeen is when a member of the queue was there, and whether one is now. A
// member that holds all it may asks for nothing, but says that it is there.
func (b *Broker) lastSeen(ctx context.Context, info *jetstream.ConsumerInfo) (seen time.Time, here bool, err error) {
	if info.NumWaiting > 0 {
		return time.Now(), true, nil
	}
	said, seen, err := b.state(ctx, b.seenSubject(info.Name))
	if said == memberHere && time.Since(seen) < 2*seenEvery {
		return time.Now(), true, err
	}
	for _, other := range []*time.Time{info.Delivered.Last, info.AckFloor.Last} {
		if other != nil && other.After(seen) {
			seen = *other
		}
	}
	return seen, false, err
}

// tellSeen says at once, now and then, and at the end that the member is there.
func (m *member) tellSeen() {
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ended), time.Second)
		said := memberHere
		if m.ended.Err() != nil {
			said = memberGone
		}
		err := m.broker.setState(ctx, m.broker.seenSubject(m.consumer), said)
		cancel()
		if err != nil {
			m.broker.o.Log.Debug("broker: tell that a member is there", "topic", m.topic, "queue", m.queue, "error", err)
		}
		if said == memberGone {
			return
		}
		select {
		case <-tick.C:
		case <-m.ended.Done():
		}
	}
}
