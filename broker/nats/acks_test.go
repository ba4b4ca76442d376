package nats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
)

// A host that hands over has acknowledgements under way: none of them is
// forgotten, so that nothing comes again that was acknowledged before.
func TestHandOverForgetsNoAck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	host := openEngine(t, dir)
	b := openBroker(t, openEngine(t, dir), nats.Options{})
	ctx := bounded(t, 60*time.Second)
	m, err := b.Join(ctx, "t", "q", broker.JoinOptions{Prefetch: 500})
	if err != nil {
		t.Fatal(err)
	}
	const messages = 3000
	all := make([]broker.Message, messages)
	for i := range all {
		all[i].Body = fmt.Append(nil, i)
	}
	for _, err := range b.PublishAll(ctx, "t", make([]string, messages), all) {
		if err != nil {
			t.Fatal(err)
		}
	}
	closed := make(chan error, 1)
	done, acked, again := make(chan struct{}), map[string]bool{}, 0
	receiving, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		for {
			h, err := m.Receive(receiving)
			if err != nil {
				return
			}
			if acked[string(h.Body)] {
				again++
			}
			if h.Ack(ctx) == nil {
				acked[string(h.Body)] = true
			}
			if len(acked) == messages/2 {
				go func() { closed <- host.Close(ctx) }()
			}
		}
	}()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	within(t, broker.DefaultAckWait-5*time.Second, "nothing is left", func() bool {
		info, err := b.Queue(bounded(t, time.Second), "t", "q")
		return err == nil && info.Lag+info.Held == 0
	})
	stop()
	<-done
	if again > 0 || len(acked) != messages {
		t.Errorf("%d of %d messages came, %d came again that were acknowledged", len(acked), messages, again)
	}
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}
