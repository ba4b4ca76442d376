package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
)

func testKept(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.kept"
	s.publish(a, topic, "before")
	s.declare(a, topic, "q", broker.QueueOptions{})
	want := numbered("", 10)
	for _, body := range want {
		s.publish(b, topic, body)
	}
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 4})
	for _, body := range want {
		s.ack(s.expect(m, body, 1))
	}
	s.nothing(m)
}

func testReopen(s *suite) {
	b := s.open(s.T)
	d, ok := b.(broker.Durable)
	if !ok {
		s.Fatal("the broker is not durable")
	}
	const topic = "durable.reopen"
	m, err := d.Join(s.ctx(), topic, "q", broker.JoinOptions{Prefetch: 2})
	if err != nil {
		s.Fatal(err)
	}
	for _, body := range []string{"acked", "held", "waiting"} {
		s.publish(b, topic, body)
	}
	s.ack(s.expect(m, "acked", 1))
	s.expect(m, "held", 1)
	if err := b.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	m = s.join(s.durable(), topic, "q", broker.JoinOptions{Prefetch: 10})
	got := map[string]int{}
	for range 2 {
		h := s.receive(m)
		got[string(h.Body)] = h.Attempt
		s.ack(h)
	}
	// Closing has returned what was held, and that does not count.
	if want := map[string]int{"held": 1, "waiting": 1}; !maps.Equal(got, want) {
		s.Fatalf("after Close: %v, want %v", got, want)
	}
	s.nothing(m)
}

func testEveryQueue(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.every"
	s.declare(a, topic, "one", broker.QueueOptions{})
	s.declare(a, topic, "two", broker.QueueOptions{})
	want := numbered("", 5)
	for _, body := range want {
		s.publish(a, topic, body)
	}
	one := s.join(b, topic, "one", broker.JoinOptions{Prefetch: 5})
	for _, body := range want {
		s.ack(s.expect(one, body, 1))
	}
	s.nothing(one)
	two := s.join(b, topic, "two", broker.JoinOptions{Prefetch: 5}) // nothing went with the other's acknowledgement
	for _, body := range want {
		s.ack(s.expect(two, body, 1))
	}
	s.nothing(two)
}

func testMembersShare(s *suite) {
	a, b := s.durable(), s.durable()
	const topic, n = "durable.share", 200
	members := []broker.Member{
		s.join(a, topic, "q", broker.JoinOptions{Prefetch: 4}),
		s.join(a, topic, "q", broker.JoinOptions{Prefetch: 4}),
		s.join(b, topic, "q", broker.JoinOptions{Prefetch: 4}),
	}
	for _, body := range numbered("", n) {
		s.publish(b, topic, body)
	}
	count := s.drain(members, n, func(h *broker.Held) error { return h.Ack(s.ctx()) })
	for body, times := range count {
		if times != 1 {
			s.Errorf("%s was delivered %d times", body, times)
		}
	}
}

// drain receives with all members at once until n different messages were
// settled without an error, and counts the deliveries of each.
func (s *suite) drain(members []broker.Member, n int, settle func(*broker.Held) error) map[string]int {
	s.Helper()
	ctx, done := context.WithTimeout(s.Context(), s.o.Wait)
	defer done()
	var mu sync.Mutex
	count, settled := map[string]int{}, map[string]bool{}
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			for {
				h, err := m.Receive(ctx)
				if err != nil {
					return
				}
				err = settle(h)
				mu.Lock()
				count[string(h.Body)]++
				if err == nil {
					settled[string(h.Body)] = true
				}
				if len(settled) >= n {
					done()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(settled) < n {
		s.Fatalf("%d of %d messages were settled within %v", len(settled), n, s.o.Wait)
	}
	return count
}

func testDurableOrder(s *suite) {
	b := s.durable()
	const topic, n = "durable.order", 300
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 16})
	for _, body := range numbered("", n) {
		s.publish(b, topic, body)
	}
	for _, body := range numbered("", n) {
		s.ack(s.expect(m, body, 1))
	}
}

func testDurableMessage(s *suite) {
	b := s.durable()
	const topic = "durable.message"
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 2})
	header := map[string]string{"Content-Type": "text/plain", "lower": "a, b", "Ü": "ü\"\\", "Empty": ""}
	body := make([]byte, 1<<16)
	for i := range body {
		body[i] = byte(i)
	}
	before := time.Now().Add(-time.Minute) // clocks differ
	if err := b.Publish(s.ctx(), topic, broker.Message{Header: header, Body: body}); err != nil {
		s.Fatal(err)
	}
	s.publish(b, topic, "")
	want := header
	if s.o.Header != nil {
		want = s.o.Header(header)
	}
	h := s.receive(m)
	if string(h.Body) != string(body) || !maps.Equal(h.Header, want) || h.Topic != topic {
		s.Errorf("received topic %q, header %q, %d bytes", h.Topic, h.Header, len(h.Body))
	}
	if h.At.Before(before) || h.At.After(time.Now().Add(time.Minute)) {
		s.Errorf("stored at %v", h.At)
	}
	second := s.expect(m, "", 1)
	if h.ID == "" || h.ID == second.ID {
		s.Errorf("IDs %q and %q", h.ID, second.ID)
	}
	id := h.ID
	s.nack(h, 0)
	if h = s.receive(m); h.ID != id || string(h.Body) != string(body) || !maps.Equal(h.Header, want) {
		s.Errorf("delivered again: ID %q, want %q; header %q, %d bytes", h.ID, id, h.Header, len(h.Body))
	}
	s.ack(h)
	s.ack(second)
}

func testPrefetch(s *suite) {
	b := s.durable()
	const topic = "durable.prefetch"
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 3})
	for _, body := range numbered("", 10) {
		s.publish(b, topic, body)
	}
	var held []*broker.Held
	for _, body := range numbered("", 3) {
		held = append(held, s.expect(m, body, 1))
	}
	s.nothing(m)
	s.ack(held[1])
	held = append(held, s.expect(m, "003", 1))
	s.nothing(m)
	s.nack(held[0], time.Hour)
	s.expect(m, "004", 1)
	s.nothing(m)
}

func testNack(s *suite) {
	b := s.durable()
	const topic = "durable.nack"
	m := s.join(b, topic, "q", broker.JoinOptions{})
	s.publish(b, topic, "x")
	for attempt := 1; attempt <= 4; attempt++ {
		s.nack(s.expect(m, "x", attempt), 0)
	}
	s.ack(s.expect(m, "x", 5))
	s.nothing(m)
}

func testNackDelay(s *suite) {
	b := s.durable()
	const topic, delay = "durable.delay", 700 * time.Millisecond
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 2})
	s.publish(b, topic, "late")
	s.publish(b, topic, "other")
	late := s.expect(m, "late", 1)
	start := time.Now()
	s.nack(late, delay)
	s.ack(s.expect(m, "other", 1)) // it does not wait for the first
	s.ack(s.expect(m, "late", 2))
	if d := time.Since(start); d < delay-50*time.Millisecond {
		s.Errorf("came again after %v, the delay was %v", d, delay)
	}
}

func testReturn(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.return"
	m := s.join(a, topic, "q", broker.JoinOptions{})
	s.publish(b, topic, "x")
	for range 3 {
		if err := s.expect(m, "x", 1).Return(s.ctx()); err != nil {
			s.Fatalf("Return: %v", err)
		}
	}
	s.nack(s.expect(m, "x", 1), 0)
	if err := s.expect(m, "x", 2).Return(s.ctx()); err != nil {
		s.Fatalf("Return: %v", err)
	}
	if err := m.Close(s.ctx()); err != nil {
		s.Fatal(err)
	}
	m = s.join(b, topic, "q", broker.JoinOptions{}) // another one knows the count, too
	s.ack(s.expect(m, "x", 2))
}

func testLapse(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.lapse"
	o := broker.JoinOptions{QueueOptions: broker.QueueOptions{AckWait: s.o.AckWait}}
	m := s.join(a, topic, "q", o)
	s.publish(b, topic, "x")
	old := s.expect(m, "x", 1)
	other := s.join(b, topic, "q", o)
	ctx, cancel := context.WithTimeout(s.Context(), s.o.Wait)
	defer cancel()
	got := make(chan *broker.Held, 2)
	for _, member := range []broker.Member{m, other} { // it may come to either
		go func() {
			if h, err := member.Receive(ctx); err == nil {
				got <- h
			}
		}()
	}
	select {
	case h := <-got:
		if string(h.Body) != "x" || h.Attempt != 2 {
			s.Fatalf("received %q, attempt %d", h.Body, h.Attempt)
		}
		s.ack(h)
	case <-ctx.Done():
		s.Fatal("a message that was not acknowledged did not come again")
	}
	s.eventually("the first delivery has lapsed", func() bool { return !old.Fresh() })
	if err := old.Ack(s.ctx()); !errors.Is(err, broker.ErrLapsed) {
		s.Errorf("Ack of a delivery that has lapsed: %v, want ErrLapsed", err)
	}
}

func testExtend(s *suite) {
	b := s.durable()
	const topic = "durable.extend"
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 2, QueueOptions: broker.QueueOptions{AckWait: s.o.AckWait}})
	s.publish(b, topic, "x")
	h := s.expect(m, "x", 1)
	tick := time.NewTicker(s.o.AckWait / 4)
	defer tick.Stop()
	for range 7 {
		<-tick.C
		if err := h.Extend(s.ctx()); err != nil {
			s.Fatalf("Extend: %v", err)
		}
	}
	s.nothing(m)
	s.ack(h)
	s.nothing(m)
}

func testSettledOnce(s *suite) {
	b := s.durable()
	const topic = "durable.once"
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 3})
	for i, first := range []func(*broker.Held) error{
		func(h *broker.Held) error { return h.Ack(s.ctx()) },
		func(h *broker.Held) error { return h.Nack(s.ctx(), time.Hour) },
		func(h *broker.Held) error { return h.Return(s.ctx()) },
	} {
		s.publish(b, topic, fmt.Sprint(i))
		h := s.expect(m, fmt.Sprint(i), 1)
		if err := first(h); err != nil {
			s.Fatalf("settle: %v", err)
		}
		for _, again := range []error{h.Ack(s.ctx()), h.Nack(s.ctx(), 0), h.Return(s.ctx()), h.Extend(s.ctx())} {
			if !errors.Is(again, broker.ErrSettled) {
				s.Errorf("settled again: %v, want ErrSettled", again)
			}
		}
	}
	s.ack(s.expect(m, "2", 1))
	s.nothing(m)
}

func testInFlight(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.inflight"
	o := broker.JoinOptions{Prefetch: 4, QueueOptions: broker.QueueOptions{MaxInFlight: 1}}
	members := []broker.Member{s.join(a, topic, "q", o), s.join(b, topic, "q", o)}
	want := numbered("", 20)
	for _, body := range want {
		s.publish(b, topic, body)
	}
	var mu sync.Mutex
	var order []string
	s.drain(members, len(want), func(h *broker.Held) error {
		mu.Lock()
		body := string(h.Body)
		if h.Attempt == 1 && body[2]%2 == 1 { // each second one fails at first
			mu.Unlock()
			s.nack(h, 10*time.Millisecond)
			return errors.New("failed")
		}
		order = append(order, body)
		mu.Unlock()
		return h.Ack(s.ctx())
	})
	if fmt.Sprint(order) != fmt.Sprint(want) {
		s.Errorf("acknowledged in the order %v", order)
	}
}

func testNothingLost(s *suite) {
	a, b := s.durable(), s.durable()
	const topic, n = "durable.all", 200
	s.declare(a, topic, "q", broker.QueueOptions{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for _, body := range numbered(fmt.Sprintf("%d-", i), n/4) {
				if err := []broker.Durable{a, b}[i%2].Publish(s.ctx(), topic, broker.Message{Body: []byte(body)}); err != nil {
					s.Errorf("Publish: %v", err)
				}
			}
		})
	}
	var members []broker.Member
	for i := range 4 {
		members = append(members, s.join([]broker.Durable{a, b}[i%2], topic, "q", broker.JoinOptions{Prefetch: 1 + 3*i}))
	}
	var mu sync.Mutex
	turn := 0
	s.drain(members, n, func(h *broker.Held) error {
		mu.Lock()
		turn++
		now := turn
		mu.Unlock()
		switch {
		case now%5 == 1:
			return errors.Join(errors.New("nacked"), h.Nack(s.ctx(), time.Duration(now%3)*10*time.Millisecond))
		case now%7 == 1:
			return errors.Join(errors.New("returned"), h.Return(s.ctx()))
		}
		return h.Ack(s.ctx())
	})
	wg.Wait()
}
