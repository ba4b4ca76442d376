package brokertest

import (
	"context"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// RunDurable runs the suite of [broker.Durable], and of [broker.Queues],
// [broker.Deduplicator], [broker.Bulk] and [broker.Wildcards] when the broker is those, too.
// open is as in Run; all brokers reach the same engine, and what it keeps
// survives their Close. The suite takes some seconds of waiting for what must
// run out.
func RunDurable(t *testing.T, open func(t *testing.T) broker.Broker, o Options) {
	t.Helper()
	o.fill()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"KeptFromDeclaration", testKept},
		{"KeptAcrossClose", testReopen},
		{"EveryQueueGetsEveryMessage", testEveryQueue},
		{"MembersShare", testMembersShare},
		{"Order", testDurableOrder},
		{"HeaderAndBody", testDurableMessage},
		{"Prefetch", testPrefetch},
		{"PrefetchBytes", testPrefetchBytes},
		{"Nack", testNack},
		{"NackDelay", testNackDelay},
		{"Return", testReturn},
		{"AckWaitRunsOut", testLapse},
		{"Extend", testExtend},
		{"SettledOnce", testSettledOnce},
		{"MemberLeaves", testLeave},
		{"MemberDrains", testDrain},
		{"NackedByADrainedMember", testNackDrained},
		{"MaxInFlightKeepsOrder", testInFlight},
		{"OrderedQueueHasOneMember", testOneMember},
		{"OrderedQueueGoesOn", testTakeOver},
		{"OptionsOfExistingQueue", testRedeclare},
		{"NamesNeverMix", testDurableNames},
		{"BadNames", testBadNames},
		{"LiveAndDurableTogether", testLiveToo},
		{"ContextEnded", testDurableContext},
		{"Closed", testDurableClosed},
		{"NothingIsLost", testNothingLost},
		{"PublishOnce", testOnce},
		{"PublishAll", testPublishAll},
		{"Wildcards", testWildcards},
		{"QueueNumbers", testNumbers},
		{"Purge", testPurge},
		{"Delete", testDelete},
		{"MemberOfDeletedQueue", testDeletedUnderMember},
		{"BrowseAndRemove", testBrowse},
		{"Expires", testExpires},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&suite{T: t, o: o, open: open})
		})
	}
}

// durable opens a broker.
func (s *suite) durable() broker.Durable {
	s.Helper()
	b, ok := s.broker().(broker.Durable)
	if !ok {
		s.Fatal("the broker is not durable")
	}
	return b
}

// queues opens a broker whose queues can be managed, or skips the test.
func (s *suite) queues() (broker.Durable, broker.Queues) {
	s.Helper()
	b := s.durable()
	q, ok := b.(broker.Queues)
	if !ok {
		s.Skip("this broker's queues cannot be managed")
	}
	return b, q
}

func (s *suite) declare(b broker.Durable, topic, queue string, o broker.QueueOptions) {
	s.Helper()
	if err := b.Declare(s.ctx(), topic, queue, o); err != nil {
		s.Fatalf("Declare(%q, %q): %v", topic, queue, err)
	}
}

func (s *suite) join(b broker.Durable, topic, queue string, o broker.JoinOptions) broker.Member {
	s.Helper()
	m, err := b.Join(s.ctx(), topic, queue, o)
	if err != nil {
		s.Fatalf("Join(%q, %q): %v", topic, queue, err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), s.o.Wait)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			s.Logf("Close of a member: %v", err)
		}
	})
	return m
}

// receive waits for a message.
func (s *suite) receive(m broker.Member) *broker.Held {
	s.Helper()
	h, err := m.Receive(s.ctx())
	if err != nil {
		s.Fatalf("Receive: %v", err)
	}
	return h
}

// expect receives a message and compares it.
func (s *suite) expect(m broker.Member, body string, attempt int) *broker.Held {
	s.Helper()
	h := s.receive(m)
	if string(h.Body) != body || h.Attempt != attempt {
		s.Fatalf("received %.40q, attempt %d; want %.40q, attempt %d", h.Body, h.Attempt, body, attempt)
	}
	return h
}

// nothing listens for what must not come.
func (s *suite) nothing(m broker.Member) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), s.o.Quiet)
	defer cancel()
	if h, err := m.Receive(ctx); err == nil {
		s.Fatalf("received %.40q, attempt %d; want nothing", h.Body, h.Attempt)
	}
}

func (s *suite) ack(h *broker.Held) {
	s.Helper()
	if err := h.Ack(s.ctx()); err != nil {
		s.Fatalf("Ack: %v", err)
	}
}

func (s *suite) nack(h *broker.Held, delay time.Duration) {
	s.Helper()
	if err := h.Nack(s.ctx(), delay); err != nil {
		s.Fatalf("Nack: %v", err)
	}
}
