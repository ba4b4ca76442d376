// Package brokertest is the suite that every [broker.Broker] passes: the
// contract of the port, point by point. It owns what is common to all engines;
// reconnection and durability are tested beside the driver that has them.
package brokertest

import (
	"context"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// Options say what the engine under test can do. The zero value is an engine
// that several brokers share, that does not promise order, keeps every header
// and takes bodies up to 4 MiB.
type Options struct {
	// Alone: every broker that open returns is an engine of its own, so the
	// tests use a single one where they would otherwise use two.
	Alone bool
	// Ordered: messages published one after the other by one publisher arrive
	// in that order.
	Ordered bool
	// Limit is the largest body in bytes that must arrive; 0 means 4 MiB.
	Limit int
	// TooLarge is the size of a body in bytes that must be refused with
	// [broker.ErrTooLarge]; 0 means that the engine has no limit.
	TooLarge int
	// Header maps a header as it was published to what arrives, for engines
	// that cannot keep it; nil means that it arrives as it was.
	Header func(map[string]string) map[string]string
	// Topics, when set, tells whether the engine can hold the topic; nil means
	// that it holds any.
	Topics func(topic string) bool
	// Wait bounds the wait for what must happen; 0 means 30 s.
	Wait time.Duration
	// Lacks are tests that the engine cannot pass, by name, and why. It is for
	// code that is not ours; a driver has none.
	Lacks map[string]string
	// Narrow: a durable queue's pattern may not begin with a wildcard, and
	// patterns match topics of plain parts alone: none is empty, * or >.
	Narrow bool
	// AckWait is how long the tests have the engine wait for an
	// acknowledgement; 0 means 3 s.
	AckWait time.Duration
	// Blind: the engine cannot tell what members of a durable queue hold, how
	// old its messages are, nor who was there; it counts messages where others
	// count bytes; and it cannot change a queue that is there.
	Blind bool
	// Quiet is how long the tests listen for what must not happen; 0 means 50 ms.
	Quiet time.Duration
}

// Run runs the suite. open returns a broker that is connected and ready; unless
// Options.Alone is set, all brokers that open returns within one call of Run
// reach the same engine. The suite closes them; open may register further
// cleanup with its t, which runs after that. The topics of one test are free
// of subscriptions, not of old messages, when it starts.
func Run(t *testing.T, open func(t *testing.T) broker.Broker, o Options) {
	t.Helper()
	o.fill()
	left := len(o.Lacks)
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"PublishToNobody", testNobody},
		{"EverySubscriberGetsEveryMessage", testFanOut},
		{"CloseOneOfTwoSubscriptions", testCloseOne},
		{"LiveOnReturn", testLive},
		{"SubscriptionOutlivesContext", testOutlives},
		{"Order", testOrder},
		{"Header", testHeader},
		{"BodySizes", testBodies},
		{"TooLarge", testTooLarge},
		{"ReceiverOwnsDelivery", testOwnership},
		{"TopicsNeverMix", testTopics},
		{"EmptyTopic", testEmptyTopic},
		{"QueueSharesMessages", testQueueShares},
		{"QueuesAndPlainTogether", testQueuesTogether},
		{"QueueMemberLeaves", testQueueLeave},
		{"QueueNamesNeverMix", testQueueNames},
		{"HandlerIsNotConcurrent", testSerial},
		{"PublishFromHandler", testEcho},
		{"SlowHandlerAlone", testSlow},
		{"NotCalledAfterClose", testAfterClose},
		{"CloseTwice", testCloseTwice},
		{"ClosedBroker", testClosedBroker},
		{"ContextEnded", testContext},
		{"Concurrency", testConcurrency},
	} {
		if why := o.Lacks[test.name]; why != "" {
			t.Logf("left out: %s: %s", test.name, why)
			left--
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, o: o, open: open})
		})
	}
	if left != 0 {
		t.Errorf("%d of the tests to leave out do not exist", left)
	}
}

// fill sets what was left open.
func (o *Options) fill() {
	if o.Limit == 0 {
		o.Limit = 4 << 20
	}
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	if o.Quiet == 0 {
		o.Quiet = 50 * time.Millisecond
	}
	if o.AckWait == 0 {
		o.AckWait = 3 * time.Second
	}
}

// suite is one test's view of the engine.
type suite struct {
	*testing.T
	o     Options
	open  func(t *testing.T) broker.Broker
	first broker.Broker
}

// broker opens a broker, closed when the test ends.
func (s *suite) broker() broker.Broker {
	s.Helper()
	if s.o.Alone && s.first != nil {
		return s.first
	}
	b := s.open(s.T)
	s.Cleanup(func() {
		if err := b.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	})
	s.first = b
	return b
}

// ctx bounds one call of the broker.
func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), s.o.Wait)
	s.Cleanup(cancel)
	return ctx
}

// publish publishes a body or fails the test.
func (s *suite) publish(b broker.Broker, topic, body string) {
	s.Helper()
	if err := b.Publish(s.ctx(), topic, broker.Message{Body: []byte(body)}); err != nil {
		s.Fatalf("Publish to %q: %v", topic, err)
	}
}

// subscribe subscribes with the handler or fails the test.
func (s *suite) subscribe(b broker.Broker, topic, queue string, h broker.Handler) broker.Subscription {
	s.Helper()
	sub, err := b.Subscribe(s.ctx(), topic, broker.SubscribeOptions{Queue: queue}, h)
	if err != nil {
		s.Fatalf("Subscribe to %q: %v", topic, err)
	}
	s.Cleanup(func() { _ = sub.Close() })
	return sub
}
