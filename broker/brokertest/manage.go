package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/micro/sidecar/broker"
)

func testNumbers(s *suite) {
	b, q := s.queues()
	const topic = "durable.numbers"
	info := func() broker.QueueInfo {
		s.Helper()
		i, err := q.Queue(s.ctx(), topic, "q")
		if err != nil {
			s.Fatalf("Queue: %v", err)
		}
		return i
	}
	if _, err := q.Queue(s.ctx(), topic, "q"); !errors.Is(err, broker.ErrNoQueue) {
		s.Errorf("Queue of an unknown one: %v, want ErrNoQueue", err)
	}
	s.declare(b, topic, "q", broker.QueueOptions{AckWait: 20 * time.Second})
	if i := info(); i.Topic != topic || i.Queue != "q" || i.Lag+i.Held+i.Members != 0 || !i.Oldest.IsZero() || i.AckWait != 20*time.Second {
		s.Errorf("a new queue: %+v", i)
	}
	start := time.Now().Add(-time.Minute)
	for _, body := range numbered("", 5) {
		s.publish(b, topic, body)
	}
	s.eventually("five wait", func() bool { i := info(); return i.Lag == 5 && i.Held == 0 })
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 2})
	h := s.expect(m, "000", 1)
	s.eventually("two are held", func() bool { i := info(); return i.Lag == 3 && (i.Held == 2 || s.o.Blind) })
	if i := info(); i.Oldest.Before(start) && !s.o.Blind {
		s.Errorf("oldest: %v", i.Oldest)
	}
	s.ack(h)
	s.numbersAtTheEnd(m, info)
	all, err := q.Queues(s.ctx())
	if err != nil {
		s.Fatalf("Queues: %v", err)
	}
	if !slices.ContainsFunc(all, func(i broker.QueueInfo) bool { return i.Topic == topic && i.Queue == "q" }) {
		s.Errorf("Queues: %+v", all)
	}
}

// numbersAtTheEnd empties a queue of four, and leaves it.
func (s *suite) numbersAtTheEnd(m broker.Member, info func() broker.QueueInfo) {
	s.Helper()
	s.eventually("one is acknowledged", func() bool { i := info(); return i.Lag+i.Held == 4 || s.o.Blind })
	for range 4 {
		s.ack(s.receive(m))
	}
	s.eventually("a member waits", func() bool { i := info(); return i.Lag+i.Held == 0 && i.Members == 1 && i.Oldest.IsZero() })
	if i := info(); time.Since(i.LastSeen) > time.Minute {
		s.Errorf("last seen %v", i.LastSeen)
	}
	if err := m.Close(s.ctx()); err != nil {
		s.Fatal(err)
	}
	s.eventually("nobody waits", func() bool { return info().Members == 0 })
	if i := info(); time.Since(i.LastSeen) > 2*time.Minute && !s.o.Blind {
		s.Errorf("last seen %v", i.LastSeen)
	}
}

func testPurge(s *suite) {
	b, q := s.queues()
	const topic = "durable.purge"
	s.declare(b, topic, "q", broker.QueueOptions{AckWait: 20 * time.Second})
	s.declare(b, topic, "other", broker.QueueOptions{})
	for _, body := range numbered("", 5) {
		s.publish(b, topic, body)
	}
	s.eventually("five wait", func() bool { i, err := q.Queue(s.ctx(), topic, "q"); return err == nil && i.Lag == 5 })
	if n, err := q.Purge(s.ctx(), topic, "q"); err != nil || n != 5 {
		s.Fatalf("Purge: %d, %v; want 5", n, err)
	}
	if i, err := q.Queue(s.ctx(), topic, "q"); err != nil || i.Lag != 0 || i.AckWait != 20*time.Second {
		s.Errorf("after Purge: %+v, %v", i, err)
	}
	s.publish(b, topic, "after")
	s.ack(s.expect(s.join(b, topic, "q", broker.JoinOptions{}), "after", 1))
	other := s.join(b, topic, "other", broker.JoinOptions{Prefetch: 10})
	for _, body := range append(numbered("", 5), "after") {
		s.ack(s.expect(other, body, 1))
	}
	if _, err := q.Purge(s.ctx(), topic, "unknown"); !errors.Is(err, broker.ErrNoQueue) {
		s.Errorf("Purge of an unknown queue: %v, want ErrNoQueue", err)
	}
}

func testDelete(s *suite) {
	b, q := s.queues()
	const topic = "durable.delete"
	s.declare(b, topic, "q", broker.QueueOptions{})
	s.publish(b, topic, "x")
	if err := q.Delete(s.ctx(), topic, "q"); err != nil {
		s.Fatalf("Delete: %v", err)
	}
	if err := q.Delete(s.ctx(), topic, "q"); !errors.Is(err, broker.ErrNoQueue) {
		s.Errorf("Delete again: %v, want ErrNoQueue", err)
	}
	if _, err := q.Queue(s.ctx(), topic, "q"); !errors.Is(err, broker.ErrNoQueue) {
		s.Errorf("Queue after Delete: %v, want ErrNoQueue", err)
	}
	s.nothing(s.join(b, topic, "q", broker.JoinOptions{}))
}

func testDeletedUnderMember(s *suite) {
	b, q := s.queues()
	const topic = "durable.deleted"
	m := s.join(b, topic, "q", broker.JoinOptions{})
	s.publish(b, topic, "x")
	s.ack(s.expect(m, "x", 1))
	if err := q.Delete(s.ctx(), topic, "q"); err != nil {
		s.Fatal(err)
	}
	s.eventually("the queue is back", func() bool { _, err := q.Queue(s.ctx(), topic, "q"); return err == nil })
	s.publish(b, topic, "y")
	s.ack(s.expect(m, "y", 1))
}

func testBrowse(s *suite) {
	b, q := s.queues()
	const topic = "durable.browse"
	if _, err := q.Browse(s.ctx(), topic, "q", "", 10); !errors.Is(err, broker.ErrNoQueue) {
		s.Errorf("Browse of an unknown queue: %v, want ErrNoQueue", err)
	}
	s.declare(b, topic, "q", broker.QueueOptions{})
	want := numbered("", 5)
	for _, body := range want {
		s.publish(b, topic, body)
	}
	browse := func(after string, limit int) (bodies, ids []string) {
		s.Helper()
		all, err := q.Browse(s.ctx(), topic, "q", after, limit)
		if err != nil {
			s.Fatalf("Browse: %v", err)
		}
		for _, m := range all {
			bodies, ids = append(bodies, string(m.Body)), append(ids, m.ID)
			if m.Topic != topic || time.Since(m.At) > time.Hour {
				s.Errorf("browsed %q of topic %q, stored %v", m.Body, m.Topic, m.At)
			}
		}
		return bodies, ids
	}
	if _, err := q.Browse(s.ctx(), topic, "q", "nonsense", 1); err != nil && !errors.Is(err, broker.ErrNoMessage) {
		s.Errorf("Browse behind nonsense: %v, want ErrNoMessage", err)
	}
	bodies, ids := browse("", 3)
	if !slices.Equal(bodies, want[:3]) {
		s.Fatalf("browsed %q", bodies)
	}
	bodies, rest := browse(ids[2], 10)
	if !slices.Equal(bodies, want[3:]) {
		s.Fatalf("browsed %q behind the third", bodies)
	}
	ids = append(ids, rest...)
	if err := q.Remove(s.ctx(), topic, "q", ids[1]); err != nil {
		s.Fatalf("Remove: %v", err)
	}
	for _, id := range []string{ids[1], "nonsense", "18446744073709551615", fmt.Sprint(1 << 60)} {
		if err := q.Remove(s.ctx(), topic, "q", id); !errors.Is(err, broker.ErrNoMessage) {
			s.Errorf("Remove(%q): %v, want ErrNoMessage", id, err)
		}
	}
	m := s.join(b, topic, "q", broker.JoinOptions{Prefetch: 5})
	for _, body := range []string{"000", "002", "003", "004"} {
		s.ack(s.expect(m, body, 1))
	}
	s.nothing(m)
	s.eventually("nothing is left", func() bool {
		all, err := q.Browse(s.ctx(), topic, "q", "", 10)
		return err == nil && len(all) == 0
	})
}

func testExpires(s *suite) {
	b, q := s.queues()
	const topic = "durable.expires"
	s.declare(b, topic, "stays", broker.QueueOptions{})
	m := s.join(b, topic, "goes", broker.JoinOptions{QueueOptions: broker.QueueOptions{Expires: time.Second}})
	s.publish(b, topic, "x")
	s.ack(s.expect(m, "x", 1))
	if err := m.Close(s.ctx()); err != nil {
		s.Fatal(err)
	}
	if s.o.Blind { // who looks is there
		<-time.After(3 * time.Second)
	}
	s.eventually("the queue is gone", func() bool {
		_, err := q.Queue(s.ctx(), topic, "goes")
		return errors.Is(err, broker.ErrNoQueue)
	})
	if _, err := q.Queue(s.ctx(), topic, "stays"); err != nil {
		s.Errorf("a queue without an expiry: %v", err)
	}
}
