package nats

import (
	"context"
	"testing"
	"time"
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
