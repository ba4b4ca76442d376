package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/micro/sidecar/broker"
)

func testLeave(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.leave"
	m := s.join(a, topic, "q", broker.JoinOptions{Prefetch: 4})
	want := map[string]int{}
	for _, body := range numbered("", 4) {
		s.publish(b, topic, body)
		want[body] = 1
	}
	s.expect(m, "000", 1)
	s.expect(m, "001", 1)
	for range 2 {
		if err := m.Close(s.ctx()); err != nil {
			s.Fatalf("Close: %v", err)
		}
	}
	if _, err := m.Receive(s.ctx()); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Receive after Close: %v, want ErrClosed", err)
	}
	other := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 4})
	got := map[string]int{}
	for range 4 {
		h := s.receive(other)
		got[string(h.Body)] = h.Attempt
		s.ack(h)
	}
	if !maps.Equal(got, want) {
		s.Errorf("the next member got %v, want %v", got, want)
	}
}

// What a drained member nacks is another's: once, and with the next attempt. A
// member that leaves does this with all it has.
func testNackDrained(s *suite) {
	b := s.durable()
	const topic, n = "durable.nackdrained", 8
	s.declare(b, topic, "q", broker.QueueOptions{})
	for i := range n {
		s.publish(b, topic, fmt.Sprint("m", i))
	}
	leaving := s.join(b, topic, "q", broker.JoinOptions{Prefetch: n})
	all := make([]*broker.Held, n)
	for i := range all {
		all[i] = s.receive(leaving)
	}
	if err := leaving.Drain(s.ctx()); err != nil {
		s.Fatalf("Drain: %v", err)
	}
	var nacks sync.WaitGroup
	for _, h := range all {
		nacks.Go(func() {
			if err := h.Nack(s.ctx(), 0); err != nil {
				s.Errorf("Nack: %v", err)
			}
		})
	}
	nacks.Wait()
	if err := leaving.Close(s.ctx()); err != nil {
		s.Fatalf("Close: %v", err)
	}
	next := s.join(b, topic, "q", broker.JoinOptions{Prefetch: n})
	got := map[string]bool{}
	for range n {
		h := s.receive(next)
		if got[string(h.Body)] || h.Attempt != 2 {
			s.Errorf("%q, attempt %d; before it came %v", h.Body, h.Attempt, got)
		}
		got[string(h.Body)] = true
		s.ack(h)
	}
	s.nothing(next)
}

func testDrain(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.drain"
	m := s.join(a, topic, "q", broker.JoinOptions{Prefetch: 4})
	for _, body := range numbered("", 4) {
		s.publish(b, topic, body)
	}
	mine := s.expect(m, "000", 1)
	other := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 4})
	for range 2 {
		if err := m.Drain(s.ctx()); err != nil {
			s.Fatalf("Drain: %v", err)
		}
	}
	if _, err := m.Receive(s.ctx()); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Receive after Drain: %v, want ErrClosed", err)
	}
	want, got := map[string]int{"001": 1, "002": 1, "003": 1}, map[string]int{}
	for range 3 {
		h := s.receive(other)
		got[string(h.Body)] = h.Attempt
		s.ack(h)
	}
	if !maps.Equal(got, want) {
		s.Errorf("the other member got %v, want %v", got, want)
	}
	s.ack(mine)
	if err := m.Close(s.ctx()); err != nil {
		s.Errorf("Close: %v", err)
	}
	s.nothing(other)
}
