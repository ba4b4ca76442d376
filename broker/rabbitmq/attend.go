package rabbitmq

import (
	"context"
	"time"
)

// A server tells its consumers that their queue was deleted, but a quorum queue
// does so while it is still there: who declares it again at once, and consumes,
// may do that with the old one, and hears nothing more. So members look.

const (
	firstLook = 100 * time.Millisecond
	lastLook  = 30 * time.Second
	// While a quorum queue has no leader it may say that nobody consumes: this is
	// believed when it was said so often, after so long each time.
	enoughMisses = 3
	missedLook   = time.Second
)

// attend ends the intake's channel when the server does not know, or no longer,
// that somebody consumes; it returns with the intake, or when the member takes
// no further messages.
func (m *member) attend(in *intake) {
	misses := 0
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if misses > 0 {
			pause = missedLook
		}
		timer := time.NewTimer(pause)
		select {
		case <-in.over.Done():
		case <-m.drained.Done():
		case <-timer.C:
		}
		timer.Stop()
		if in.over.Err() != nil || m.drained.Err() != nil {
			return
		}
		switch m.look(in) {
		case consumed:
			misses = 0
		case unconsumed:
			misses++
		case gone:
			misses = enoughMisses
		case unknown:
		}
		if misses >= enoughMisses {
			m.broker.log.Debug("broker: a member's queue has gone", "queue", m.label)
			_ = in.channel.Close() // it fails only when it has ended
			return
		}
	}
}

// presence is what the server says of a member's queue.
type presence int

const (
	unknown presence = iota // it has not answered, or the consumer is being replaced
	consumed
	unconsumed
	gone
)

func (m *member) look(in *intake) presence {
	ctx, cancel := context.WithTimeout(m.over, callTimeout)
	defer cancel()
	before := in.consumer.Load()
	state, there, err := m.broker.inspect(ctx, m.queue.name)
	switch {
	case err != nil || before != in.consumer.Load() || before == replacing:
		return unknown
	case !there:
		return gone
	case state.Consumers == 0:
		return unconsumed
	}
	return consumed
}
