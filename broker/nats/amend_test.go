package nats_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
)

// Brokers that use topics for the first time at the same time do not undo what
// the others have done: all are stored, and the stream has all of the topics.
func TestNewTopicsAtTheSameTime(t *testing.T) {
	s := natsServer(t, true)
	const brokers, topics = 4, 15
	var want []string
	var all sync.WaitGroup
	for i := range brokers {
		b := openExternal(t, s)
		var own []string
		for n := range topics {
			own = append(own, fmt.Sprintf("new%d.t%d", i, n))
			// Who hears a topic hides that no stream does.
			if _, err := b.Subscribe(bounded(t, 30*time.Second), own[n], broker.SubscribeOptions{}, func(broker.Delivery) {}); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, own...)
		all.Go(func() {
			for _, topic := range own {
				if err := b.Publish(bounded(t, 30*time.Second), topic, broker.Message{Body: []byte("x")}); err != nil {
					t.Errorf("%s: %v", topic, err)
				}
			}
		})
	}
	all.Wait()
	have := config(t, s.ClientURL()).Subjects
	for _, topic := range want {
		if !slices.Contains(have, topic) {
			t.Errorf("the stream has lost %s", topic)
		}
	}
}

// A broker that was killed while it changed the stream holds up the others for
// a moment only.
func TestLockOfBrokerGone(t *testing.T) {
	s := natsServer(t, true)
	b := openExternal(t, s)
	if err := b.Declare(bounded(t, 30*time.Second), "orders", "billing", broker.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream(t, s.ClientURL()).Publish(bounded(t, 30*time.Second), nats.DefaultPrefix+"-state.configuring", []byte("locked")); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(bounded(t, 30*time.Second), "orders", broker.Message{}); err != nil {
		t.Errorf("to a topic that the stream has: %v", err)
	}
	begun := time.Now()
	if err := b.Publish(bounded(t, 30*time.Second), "new", broker.Message{}); err != nil {
		t.Errorf("to a new topic: %v", err)
	}
	if took := time.Since(begun); took < 3*time.Second {
		t.Errorf("the lock was not waited for: %v", took)
	}
	if !slices.Contains(config(t, s.ClientURL()).Subjects, "new") {
		t.Error("the stream has not got the topic")
	}
}

func stream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	conn, err := gonats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func config(t *testing.T, url string) jetstream.StreamConfig {
	t.Helper()
	s, err := stream(t, url).Stream(bounded(t, 30*time.Second), nats.DefaultStream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}
