package brokertest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
)

// orderedQueue is one of which four messages may be with a member.
var orderedQueue = broker.JoinOptions{Prefetch: 4, QueueOptions: broker.QueueOptions{MaxInFlight: 4, AckWait: 20 * time.Second}}

func testOneMember(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.onemember"
	first := s.join(a, topic, "q", orderedQueue)
	for _, body := range numbered("", 7) {
		s.publish(b, topic, body)
	}
	held := []*broker.Held{s.expect(first, "000", 1)}
	second := s.join(b, topic, "q", orderedQueue)
	for _, body := range []string{"001", "002", "003"} {
		held = append(held, s.expect(first, body, 1))
	}
	s.nothing(first)
	s.nothing(second)
	s.nack(held[1], 0)
	again := s.expect(first, "001", 2)
	s.ack(held[0])
	s.ack(s.expect(first, "004", 1))
	s.nothing(second)
	s.ack(held[3]) // 001 and 002 are held, 005 and 006 wait
	if err := again.Extend(s.ctx()); err != nil {
		s.Errorf("Extend: %v", err)
	}
	if err := first.Close(s.ctx()); err != nil {
		s.Fatal(err)
	}
	for _, body := range []string{"001", "002", "005", "006"} {
		h := s.receive(second)
		if string(h.Body) != body {
			s.Fatalf("the next member received %q, want %q", h.Body, body)
		}
		defer s.ack(h)
	}
}

// A member that leaves finishes what it has: the next does not begin before, and
// then with what is left.
func testTakeOver(s *suite) {
	if s.o.Alone {
		s.Skip("there is one broker")
	}
	a, b := s.durable(), s.durable()
	const topic = "durable.takeover"
	o := orderedQueue
	o.AckWait = s.o.AckWait
	members := []broker.Member{s.join(a, topic, "q", o), s.join(b, topic, "q", o)}
	want := numbered("", 30)
	for _, body := range want {
		s.publish(b, topic, body)
	}
	turn, got := s.whoeverReceives(members)
	if string(got.Body) != want[0] {
		s.Fatalf("the first is %q", got.Body)
	}
	other := members[1-turn]
	if err := members[turn].Drain(s.ctx()); err != nil {
		s.Fatal(err)
	}
	s.nothing(other)
	if err := members[turn].Close(s.ctx()); err != nil {
		s.Fatal(err)
	}
	for _, body := range want {
		h := s.receive(other)
		if string(h.Body) != body {
			s.Fatalf("the next member received %q, want %q", h.Body, body)
		}
		s.ack(h)
	}
}

// whoeverReceives returns the index of the member that received a message, and
// the message.
func (s *suite) whoeverReceives(members []broker.Member) (int, *broker.Held) {
	s.Helper()
	type received struct {
		index int
		held  *broker.Held
	}
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	first := make(chan received, len(members))
	for i, m := range members {
		go func() {
			h, err := m.Receive(ctx)
			if err != nil && !errors.Is(err, context.Canceled) {
				s.Errorf("Receive: %v", err)
			}
			first <- received{i, h}
		}()
	}
	r := <-first
	cancel()
	if rest := <-first; rest.held != nil {
		s.Fatalf("two members received: %q and %q", r.held.Body, rest.held.Body)
	}
	if r.held == nil {
		s.Fatal("nobody received")
	}
	return r.index, r.held
}

// Large messages: the prefetch is bounded in bytes, and one always comes.
func testPrefetchBytes(s *suite) {
	if s.o.Blind {
		s.Skip("this engine counts messages alone")
	}
	b := s.durable()
	const size = 100 << 10
	for _, test := range []struct {
		topic       string
		bytes, most int
	}{{"durable.bytes", 3*size + size/2, 3}, {"durable.large", size / 2, 1}} {
		m := s.join(b, test.topic, "q", broker.JoinOptions{Prefetch: 8, PrefetchBytes: test.bytes})
		const n = 8
		for range n {
			s.publish(b, test.topic, strings.Repeat("x", size))
		}
		for got := 0; got < n; {
			held := []*broker.Held{s.receive(m)}
			for ctx := s.briefly(); ; { // as many as come without an acknowledgement
				h, err := m.Receive(ctx)
				if err != nil {
					break
				}
				held = append(held, h)
			}
			if len(held) > test.most {
				s.Errorf("a member that may hold %d bytes holds %d messages of %d bytes", test.bytes, len(held), size)
			}
			got += len(held)
			for _, h := range held {
				s.ack(h)
			}
		}
	}
}

// briefly is a context for what must not come, or need not.
func (s *suite) briefly() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), s.o.Quiet)
	s.Cleanup(cancel)
	return ctx
}
