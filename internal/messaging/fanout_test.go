package messaging

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// counting counts the subscriptions at the broker; before is called in each.
type counting struct {
	broker.Broker
	before     func(ctx context.Context) error
	made, open atomic.Int64
}

func (c *counting) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	c.made.Add(1)
	if c.before != nil {
		if err := c.before(ctx); err != nil {
			return nil, err
		}
	}
	s, err := c.Broker.Subscribe(ctx, topic, o, h)
	if err != nil {
		return nil, err
	}
	c.open.Add(1)
	return &counted{Subscription: s, open: &c.open}, nil
}

type counted struct {
	broker.Subscription
	open *atomic.Int64
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Subscription.Close()
}

func TestLiveSubscribersShareASubscription(t *testing.T) {
	b := &counting{}
	f := serve(t, func(o *Options) { b.Broker, o.Broker = o.Broker, b })
	const n, messages = 5, 100
	var all []*client
	for range n {
		all = append(all, f.dial("t", ""))
	}
	other := f.dial("other", "")
	if made := b.made.Load(); made != 2 {
		t.Errorf("%d subscriptions for two topics", made)
	}
	for i := range messages {
		f.publish("t", fmt.Sprint(i))
	}
	f.publish("other", "x")
	for _, c := range all {
		for i := range messages {
			if got := string(c.next().Body); got != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, got)
			}
		}
	}
	if got := string(other.next().Body); got != "x" {
		t.Errorf("the other topic's subscriber got %q", got)
	}
	for _, c := range all[1:] {
		_ = c.Close(websocket.StatusNormalClosure, "")
	}
	f.eventually("the others have gone", func() bool { return f.Counts().Subscribers == 2 })
	f.publish("t", "for one")
	if got := string(all[0].next().Body); got != "for one" {
		t.Errorf("who stayed got %q", got)
	}
	_ = all[0].Close(websocket.StatusNormalClosure, "")
	f.eventually("the subscription ends with its last user", func() bool { return b.open.Load() == 1 })
	again := f.dial("t", "")
	f.publish("t", "again")
	if got := string(again.next().Body); got != "again" {
		t.Errorf("who came later got %q", got)
	}
	f.dial("t", "q")
	f.dial("t", "q")
	if made := b.made.Load(); made != 5 {
		t.Errorf("%d subscriptions; a queue's subscribers must not share", made)
	}
}

// One that waits for another's subscription, which fails, tries it itself.
func TestSubscriptionOfTheFirstFails(t *testing.T) {
	begun, fail := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	b := &counting{}
	b.before = func(context.Context) error {
		if calls.Add(1) > 1 {
			return nil
		}
		close(begun)
		<-fail
		return errors.New("not now")
	}
	f := serve(t, func(o *Options) { b.Broker, o.Broker = o.Broker, b })
	first := make(chan error, 1)
	go func() {
		conn, response, err := websocket.Dial(t.Context(), f.at("t", ""), nil)
		if conn != nil {
			_ = conn.CloseNow()
		}
		if response != nil && response.Body != nil {
			_ = response.Body.Close()
		}
		first <- err
	}()
	<-begun
	second := make(chan *client)
	go func() { second <- f.dial("t", "") }()
	f.eventually("the second waits", func() bool {
		f.fanout.mu.Lock()
		defer f.fanout.mu.Unlock()
		return f.fanout.topics["t"].users == 2
	})
	close(fail)
	if err := <-first; err == nil {
		t.Error("the first got a subscription that failed")
	}
	c := <-second
	f.publish("t", "x")
	if got := string(c.next().Body); got != "x" {
		t.Errorf("got %q", got)
	}
}

// Frames that go out together arrive one by one, whatever their sizes.
func TestFramesTogether(t *testing.T) {
	k := keep(t)
	const n = 60
	c := k.read("topic=big&queue=q&prefetch=100")
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("\"%d %s\"", i, strings.Repeat("x", i*i*i/2)))
	}
	if status, text := k.request("POST", "topic=big&batch=ndjson", strings.Join(lines, "\n")); status != 200 {
		t.Fatalf("publish: %d %s", status, text)
	}
	for i, line := range lines {
		got := c.next()
		if string(got.Body) != line || got.Attempt != 1 {
			t.Fatalf("message %d: attempt %d, %d bytes: %.20s", i, got.Attempt, len(got.Body), got.Body)
		}
		c.say(`{"Ack":%q}`, got.ID)
	}
}
