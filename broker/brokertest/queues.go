package brokertest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/broker"
)

func testRedeclare(s *suite) {
	b, q := s.queues()
	if s.o.Blind {
		s.Skip("this engine cannot change a queue")
	}
	const topic = "durable.redeclare"
	s.declare(b, topic, "q", broker.QueueOptions{AckWait: 7 * time.Second, MaxInFlight: 3, Expires: time.Hour})
	s.publish(b, topic, "x")
	check := func(wait time.Duration, inFlight int, expires time.Duration) {
		s.Helper()
		info, err := q.Queue(s.ctx(), topic, "q")
		if err != nil {
			s.Fatal(err)
		}
		if info.AckWait != wait || info.MaxInFlight != inFlight || info.Expires != expires {
			s.Errorf("options: %+v, want %v, %d, %v", info, wait, inFlight, expires)
		}
	}
	check(7*time.Second, 3, time.Hour)
	s.declare(b, topic, "q", broker.QueueOptions{})
	check(7*time.Second, 3, time.Hour)
	s.declare(b, topic, "q", broker.QueueOptions{AckWait: 9 * time.Second, MaxInFlight: -1, Expires: -1})
	check(9*time.Second, 0, 0)
	s.ack(s.expect(s.join(b, topic, "q", broker.JoinOptions{}), "x", 1)) // nothing went with the change
}

func testDurableNames(s *suite) {
	a, b := s.durable(), s.durable()
	match := func(pattern, topic string) bool { return pattern == topic }
	if w, ok := a.(broker.Wildcards); ok {
		match = w.Match
	}
	topics := []string{"n", "N", "n.a", "n..a", ".n", "n.", "n/a", " n", "n\n", "日本", "$JS.API", "n@q", strings.Repeat("long.", 100)}
	names := []string{"q", "Q", "q.a", "*", ">", "q q", "q/a", "日本", "$JS", "\"", "a\nb", strings.Repeat("x", 200)}
	type pair struct{ topic, queue string }
	var pairs []pair
	for i, topic := range topics {
		if s.o.Topics == nil || s.o.Topics(topic) {
			pairs = append(pairs, pair{topic, names[i%len(names)]}, pair{topic, names[(i+1)%len(names)]})
		}
	}
	for _, p := range pairs {
		s.declare(a, p.topic, p.queue, broker.QueueOptions{})
	}
	for _, topic := range topics {
		if s.o.Topics == nil || s.o.Topics(topic) {
			s.publish(a, topic, topic)
		}
	}
	for _, p := range pairs {
		m := s.join(b, p.topic, p.queue, broker.JoinOptions{Prefetch: 2})
		h := s.receive(m)
		if string(h.Body) != p.topic || h.Topic != p.topic || !match(p.topic, h.Topic) {
			s.Errorf("queue %q of %q got %q of topic %q", p.queue, p.topic, h.Body, h.Topic)
		}
		s.ack(h)
		s.nothing(m)
	}
}

func testBadNames(s *suite) {
	b := s.durable()
	for _, names := range [][2]string{{"", "q"}, {"durable.bad", ""}} {
		if err := b.Declare(s.ctx(), names[0], names[1], broker.QueueOptions{}); err == nil {
			s.Errorf("Declare(%q, %q): no error", names[0], names[1])
		}
		if m, err := b.Join(s.ctx(), names[0], names[1], broker.JoinOptions{}); err == nil {
			_ = m.Close(s.ctx())
			s.Errorf("Join(%q, %q): no error", names[0], names[1])
		}
	}
}

func testLiveToo(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.live"
	plain, _ := s.record(a, topic, "")
	shared, _ := s.record(a, topic, "q") // a live queue of that name is another one
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 3})
	want := numbered("", 3)
	for _, body := range want {
		s.publish(b, topic, body)
	}
	for _, body := range want {
		s.ack(s.expect(m, body, 1))
	}
	s.exactly(plain, want...)
	s.exactly(shared, want...)
}

func testDurableContext(s *suite) {
	b := s.durable()
	const topic = "durable.context"
	ctx, cancel := context.WithCancel(s.Context())
	m, err := b.Join(ctx, topic, "q", broker.JoinOptions{})
	if err != nil {
		s.Fatal(err)
	}
	cancel() // the member outlives it
	start := time.Now()
	if _, err := m.Receive(ctx); !errors.Is(err, context.Canceled) {
		s.Errorf("Receive with an ended context: %v, want context.Canceled", err)
	}
	if _, err := b.Join(ctx, topic, "q", broker.JoinOptions{}); !errors.Is(err, context.Canceled) {
		s.Errorf("Join with an ended context: %v, want context.Canceled", err)
	}
	if err := b.Declare(ctx, topic, "q", broker.QueueOptions{}); !errors.Is(err, context.Canceled) {
		s.Errorf("Declare with an ended context: %v, want context.Canceled", err)
	}
	if d := time.Since(start); d > 10*time.Second {
		s.Errorf("an ended context was honoured after %v", d)
	}
	s.publish(b, topic, "x")
	h := s.expect(m, "x", 1)
	if err := h.Ack(ctx); err == nil {
		s.Log("Ack with an ended context: no error") // it may be quick
	} else {
		s.ack(h) // what failed can be tried again
	}
	if err := m.Close(s.ctx()); err != nil {
		s.Errorf("Close: %v", err)
	}
}

func testDurableClosed(s *suite) {
	b, ok := s.open(s.T).(broker.Durable)
	if !ok {
		s.Fatal("the broker is not durable")
	}
	const topic = "durable.closed"
	m, err := b.Join(s.ctx(), topic, "q", broker.JoinOptions{})
	if err != nil {
		s.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := m.Receive(s.ctx())
		waiting <- err
	}()
	if err := b.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	if err := <-waiting; !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Receive of a closed broker: %v, want ErrClosed", err)
	}
	if _, err := b.Join(s.ctx(), topic, "q", broker.JoinOptions{}); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Join after Close: %v, want ErrClosed", err)
	}
	if err := b.Declare(s.ctx(), topic, "q", broker.QueueOptions{}); !errors.Is(err, broker.ErrClosed) {
		s.Errorf("Declare after Close: %v, want ErrClosed", err)
	}
	if err := m.Close(s.ctx()); err != nil {
		s.Errorf("Close of a member of a closed broker: %v", err)
	}
}

func testOnce(s *suite) {
	a, b := s.durable(), s.durable()
	const topic = "durable.publishonce"
	m := s.join(a, topic, "q", broker.JoinOptions{Prefetch: 10})
	live, _ := s.record(a, topic, "")
	publish := func(at broker.Durable, id, body string) {
		s.Helper()
		once, ok := at.(broker.Deduplicator)
		if !ok {
			s.Skip("this broker cannot tell messages that were published before")
		}
		if err := once.PublishOnce(s.ctx(), topic, id, broker.Message{Body: []byte(body)}); err != nil {
			s.Fatalf("PublishOnce: %v", err)
		}
	}
	publish(a, "id 1", "one")
	publish(a, "id 1", "one again")
	s.exactly(live, "one")
	publish(b, "id 1", "one of another")
	publish(b, "id\n2", "two")
	s.ack(s.expect(m, "one", 1))
	s.ack(s.expect(m, "two", 1))
	s.nothing(m)
	other := s.join(a, topic+".other", "q", broker.JoinOptions{})
	if err := a.(broker.Deduplicator).PublishOnce(s.ctx(), topic+".other", "id 1", broker.Message{}); err != nil {
		s.Fatal(err)
	}
	s.ack(s.expect(other, "", 1)) // an ID is the topic's
}

func testPublishAll(s *suite) {
	a, b := s.durable(), s.durable()
	bulk, ok := a.(broker.Bulk)
	if !ok {
		s.Skip("this broker publishes one message at a time")
	}
	const n = 500
	topic := "all together"
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 16})
	live, _ := s.record(b, topic, "")
	ids, all, bodies := make([]string, n), make([]broker.Message, n), make([]string, n)
	for i := range all {
		ids[i], bodies[i] = strconv.Itoa(i), "message "+strconv.Itoa(i)
		all[i] = broker.Message{Header: map[string]string{"n": ids[i]}, Body: []byte(bodies[i])}
	}
	for range 2 { // the second time nothing is new
		if err := errors.Join(bulk.PublishAll(s.ctx(), topic, ids, all)...); err != nil {
			s.Fatalf("PublishAll: %v", err)
		}
	}
	for _, body := range bodies {
		s.ack(s.expect(m, body, 1))
	}
	s.nothing(m)
	s.exactly(live, bodies...)

	all[1].Body = make([]byte, 40<<20)
	if errs := bulk.PublishAll(s.ctx(), topic, make([]string, 3), all[:3]); errs[0] != nil || !errors.Is(errs[1], broker.ErrTooLarge) || errs[2] != nil {
		s.Errorf("with one that is too large: %v", errs)
	}
	s.ack(s.expect(m, bodies[0], 1))
	s.ack(s.expect(m, bodies[2], 1))
	for _, err := range bulk.PublishAll(s.ctx(), "", ids[:2], all[:2]) {
		if err == nil {
			s.Error("an empty topic was taken")
		}
	}
	_ = a.Close()
	for _, err := range bulk.PublishAll(s.ctx(), topic, ids[2:4], all[2:4]) {
		if !errors.Is(err, broker.ErrClosed) {
			s.Errorf("after Close: %v", err)
		}
	}
}

func testWildcards(s *suite) {
	a, b := s.durable(), s.durable()
	w, ok := a.(broker.Wildcards)
	if !ok {
		s.Skip("this broker has no wildcards")
	}
	topics := []string{"wild", "wild.a", "wild.b", "wild.a.b", "wild.a.b.c", "wild..b", "wild.*", "wild.>", "other.a"}
	patterns := map[string][]string{
		"wild":     {"wild"},
		"wild.*":   {"wild.a", "wild.b", "wild.*", "wild.>"},
		"wild.>":   {"wild.a", "wild.b", "wild.a.b", "wild.a.b.c", "wild..b", "wild.*", "wild.>"},
		"wild.*.b": {"wild.a.b", "wild..b"},
		"*.a":      {"wild.a", "other.a"},
		"wild.a*":  nil, // no wildcard, and no such topic
	}
	if s.o.Narrow {
		odd := func(topic string) bool {
			return strings.Contains(topic, "..") || strings.HasSuffix(topic, "*") || strings.HasSuffix(topic, ">")
		}
		topics = slices.DeleteFunc(topics, odd)
		delete(patterns, "*.a")
		for pattern, want := range patterns {
			patterns[pattern] = slices.DeleteFunc(want, odd)
		}
	}
	members, recorders := map[string]broker.Member{}, map[string]*recorder{}
	for pattern, want := range patterns {
		for _, topic := range topics {
			if got := w.Match(pattern, topic); got != slices.Contains(want, topic) {
				s.Errorf("Match(%q, %q) = %v", pattern, topic, got)
			}
		}
		members[pattern] = s.join(a, pattern, "q", broker.JoinOptions{Prefetch: 16})
		recorders[pattern], _ = s.record(a, pattern, "")
	}
	for _, topic := range topics {
		s.publish(b, topic, topic)
	}
	for pattern, want := range patterns {
		for _, topic := range want {
			h := s.expect(members[pattern], topic, 1)
			if h.Topic != topic {
				s.Errorf("pattern %q: topic %q, want %q", pattern, h.Topic, topic)
			}
			s.ack(h)
		}
		s.nothing(members[pattern])
		s.exactly(recorders[pattern], want...)
		for _, d := range recorders[pattern].deliveries() {
			if d.Topic != string(d.Body) {
				s.Errorf("live pattern %q: topic %q, want %q", pattern, d.Topic, d.Body)
			}
		}
	}
}
