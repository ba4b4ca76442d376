package nats

import (
	"context"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// DecodeEnvelope is decodeEnvelope for tests.
var DecodeEnvelope = decodeEnvelope

// Replicas is how many servers keep a stream.
func (b *Broker) Replicas(t *testing.T, stream string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config.Replicas
}

// HasTurn tells that a member has an ordered queue's turn and all that was left
// of the turns before.
func HasTurn(m broker.Member) bool {
	in := m.(*member)
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.order.active && !in.order.collecting && in.pull.asked > 0
}
