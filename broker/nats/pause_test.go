//go:build unix

package nats_test

import (
	"slices"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

func TestPausedHost(t *testing.T) {
	dir := t.TempDir()
	host := enginetest.Start(t, dir, "")
	b := openBroker(t, openEngine(t, dir), nats.Options{})
	var in inbox
	subscribe(t, b, "t", "", in.handle)
	host.Pause()
	large := make([]byte, 8<<20) // more than the kernel buffers
	for end := time.Now().Add(9 * time.Second); time.Now().Before(end); {
		start := time.Now()
		if err := b.Publish(bounded(t, 300*time.Millisecond), "t", broker.Message{Body: large}); err == nil {
			t.Fatal("Publish on a paused host: no error")
		}
		if _, err := b.Subscribe(bounded(t, 300*time.Millisecond), "u", broker.SubscribeOptions{}, in.handle); err == nil {
			t.Fatal("Subscribe on a paused host: no error")
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("two calls of 300ms took %v", took)
		}
	}
	host.Continue()
	start := time.Now()
	publish(t, b, "t", "after")
	t.Logf("published %v after it ran on", time.Since(start))
	within(t, 30*time.Second, "the subscription lives on", func() bool { return slices.Contains(in.bodies(), "after") })
}
