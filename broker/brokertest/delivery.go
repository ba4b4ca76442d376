package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"

	"github.com/micro/sidecar/broker"
)

func testNobody(s *suite) {
	b := s.broker()
	s.publish(b, "brokertest.nobody", "lost")
	// What was published before a subscription does not arrive at it.
	r, _ := s.record(b, "brokertest.nobody", "")
	s.publish(b, "brokertest.nobody", "heard")
	s.exactly(r, "heard")
}

func testFanOut(s *suite) {
	a, b := s.broker(), s.broker()
	var all []*recorder
	for _, at := range []broker.Broker{a, a, b, b} {
		r, _ := s.record(at, "brokertest.fanout", "")
		all = append(all, r)
	}
	s.publish(a, "brokertest.fanout", "1")
	s.publish(b, "brokertest.fanout", "2")
	for _, r := range all {
		s.count(r, 2)
	}
	s.quiet()
	for _, r := range all {
		got := r.bodies()
		if len(got) != 2 || got[0] == got[1] {
			s.Errorf("a subscriber got %q, want each of two messages once", got)
		}
		for _, d := range r.deliveries() {
			if d.Topic != "brokertest.fanout" {
				s.Errorf("Delivery.Topic = %q", d.Topic)
			}
		}
	}
}

func testCloseOne(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.closeone"
	gone, sub := s.record(a, topic, "")
	stays, _ := s.record(a, topic, "")
	s.publish(b, topic, "both")
	s.count(gone, 1)
	s.count(stays, 1)
	if err := sub.Close(); err != nil {
		s.Fatalf("Close of a subscription: %v", err)
	}
	s.publish(b, topic, "one")
	s.publish(a, topic, "two")
	s.count(stays, 3)
	s.exactly(gone, "both")
}

func testLive(s *suite) {
	a, b := s.broker(), s.broker()
	for i, topic := range numbered("brokertest.live.", 10) {
		from := a
		if i%2 == 1 {
			from = b // another publisher, who is not told
		}
		// The publisher has used the topic before: no stale answer may hide
		// the new subscription.
		s.publish(from, topic, "before")
		r, _ := s.record(a, topic, "")
		s.publish(from, topic, "right after")
		s.count(r, 1)
		s.same(r.bodies(), []string{"right after"})
	}
}

func testOutlives(s *suite) {
	b := s.broker()
	ctx, cancel := context.WithCancel(s.ctx())
	r := newRecorder()
	sub, err := b.Subscribe(ctx, "brokertest.outlives", broker.SubscribeOptions{}, r.handle)
	if err != nil {
		s.Fatalf("Subscribe: %v", err)
	}
	defer func() { _ = sub.Close() }()
	cancel()
	s.publish(b, "brokertest.outlives", "still here")
	s.exactly(r, "still here")
}

func testOrder(s *suite) {
	a, b := s.broker(), s.broker()
	r, _ := s.record(a, "brokertest.order", "")
	want := numbered("", 200)
	for _, body := range want {
		s.publish(b, "brokertest.order", body)
	}
	s.exactly(r, want...)
}

func testHeader(s *suite) {
	a, b := s.broker(), s.broker()
	r, _ := s.record(a, "brokertest.header", "")
	headers := []map[string]string{
		nil,
		{},
		{"Timestamp": "1499951537", "Content-Type": "text/plain; charset=utf-8"},
		{"lower": "a", "Lower": "b", "LOWER": "c", "x-Mixed_Case.9": "d"},
		{"empty": "", "with space": "v", "colon:": ":", "Ключ": "☃ 日本", "\"": "\\\"", "<&>": "<&>"},
		{"spaces": "  kept\t ", "lines": "a\r\nb: c\n\n"},
		{"long": strings.Repeat("v", 8000)},
	}
	for i, h := range headers {
		m := broker.Message{Header: h, Body: []byte(fmt.Sprint(i))}
		if err := b.Publish(s.ctx(), "brokertest.header", m); err != nil {
			s.Fatalf("Publish with header %q: %v", h, err)
		}
	}
	for _, d := range s.count(r, len(headers)) {
		var i int
		if _, err := fmt.Sscan(string(d.Body), &i); err != nil {
			s.Fatalf("body %q", d.Body)
		}
		want := headers[i]
		if s.o.Header != nil {
			want = s.o.Header(maps.Clone(want))
		}
		if !maps.Equal(d.Header, want) {
			s.Errorf("header arrived as %.200q, want %.200q", d.Header, want)
		}
	}
}

func testBodies(s *suite) {
	a, b := s.broker(), s.broker()
	r, _ := s.record(a, "brokertest.bodies", "")
	random := rand.NewChaCha8([32]byte{1})
	bodies := [][]byte{nil, {}, {0}, []byte("\xff\xfe\x00\r\n"), []byte(`{"Header":{},"Body":""}`)}
	for _, size := range []int{255, 65536, 1 << 20, s.o.Limit} {
		body := make([]byte, min(size, s.o.Limit))
		_, _ = random.Read(body)
		bodies = append(bodies, body)
	}
	for i, body := range bodies {
		if err := b.Publish(s.ctx(), "brokertest.bodies", broker.Message{Body: body}); err != nil {
			s.Fatalf("Publish of %d bytes: %v", len(body), err)
		}
		got := s.count(r, i+1)[i].Body
		if !bytes.Equal(got, body) {
			s.Fatalf("body of %d bytes arrived as %d others", len(body), len(got))
		}
	}
}

func testTooLarge(s *suite) {
	if s.o.TooLarge == 0 {
		s.Log("the engine has no limit")
		return
	}
	b := s.broker()
	r, _ := s.record(b, "brokertest.toolarge", "")
	err := b.Publish(s.ctx(), "brokertest.toolarge", broker.Message{Body: make([]byte, s.o.TooLarge)})
	if !errors.Is(err, broker.ErrTooLarge) {
		s.Fatalf("Publish of %d bytes: %v, want ErrTooLarge", s.o.TooLarge, err)
	}
	s.publish(b, "brokertest.toolarge", "next") // the broker is none the worse
	s.exactly(r, "next")
}

func testOwnership(s *suite) {
	b := s.broker()
	const topic = "brokertest.owner"
	scribble := newRecorder()
	s.subscribe(b, topic, "", func(d broker.Delivery) {
		for i := range d.Body {
			d.Body[i] = 'x'
		}
		if d.Header != nil {
			d.Header["k"] = "x"
			d.Header["new"] = "x"
		}
		scribble.handle(d)
	})
	r, _ := s.record(b, topic, "")
	m := broker.Message{Header: map[string]string{"k": "v"}, Body: []byte("body")}
	if err := b.Publish(s.ctx(), topic, m); err != nil {
		s.Fatalf("Publish: %v", err)
	}
	// The publisher has its message back when Publish returns.
	m.Header["k"] = "reused"
	copy(m.Body, "used")
	s.count(scribble, 1)
	got := s.count(r, 1)[0]
	want := map[string]string{"k": "v"}
	if s.o.Header != nil {
		want = s.o.Header(want)
	}
	if string(got.Body) != "body" || !maps.Equal(got.Header, want) {
		s.Fatalf("arrived: %q %q", got.Header, got.Body)
	}
}

func testTopics(s *suite) {
	a, b := s.broker(), s.broker()
	var topics []string
	for _, topic := range oddTopics() {
		if s.o.Topics == nil || s.o.Topics(topic) {
			topics = append(topics, topic)
		}
	}
	all := map[string]*recorder{}
	for _, topic := range topics {
		all[topic], _ = s.record(a, topic, "")
	}
	for _, topic := range topics {
		s.publish(b, topic, topic)
	}
	for _, topic := range topics {
		s.count(all[topic], 1)
	}
	s.quiet()
	for _, topic := range topics {
		got := all[topic].deliveries()
		if len(got) != 1 || string(got[0].Body) != topic || got[0].Topic != topic {
			s.Errorf("subscriber of %q got %q", topic, all[topic].bodies())
		}
	}
}

// oddTopics are strings that mean something to one engine or another.
func oddTopics() []string {
	return []string{
		"a", "A", "a.b", "a.b.c", "a.*", "a.>", "*", ">", ".", "..", ".a", "a.", "a..b",
		" ", " a", "a ", "a b", "a\tb", "a\nb", "a\x00b", "\x7f",
		"/", "a/b", "/a", "../a", "a%2Fb", "a%2fb", "a?b=c&d#e", "a+b", "a#", "+", "a/#",
		"ü", "u\u0308", "日本", "💌", "\"", "\\", "'", "<a>", "{}", "%s", "=", "-", "_",
		"$JS.API.x", "$JS.API.STREAM.LIST", "$SYS.>", "$KV.x.y", "$SRV.PING", "_INBOX.x",
		"topic:a", "micro.http.broker", "ff.http.broadcast", "null", "0",
		strings.Repeat("x", 200), strings.Repeat("x", 199), strings.Repeat("é.", 70),
	}
}

func testEmptyTopic(s *suite) {
	b := s.broker()
	if err := b.Publish(s.ctx(), "", broker.Message{Body: []byte("x")}); err == nil {
		s.Error("Publish to the empty topic: no error")
	}
	sub, err := b.Subscribe(s.ctx(), "", broker.SubscribeOptions{}, func(broker.Delivery) {})
	if err == nil {
		_ = sub.Close()
		s.Error("Subscribe to the empty topic: no error")
	}
}
