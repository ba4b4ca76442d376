package brokertest

import (
	"slices"

	"github.com/micro/sidecar/broker"
)

// union returns what the members of a queue got together, once it is n.
func (s *suite) union(n int, members ...*recorder) []string {
	s.Helper()
	all := func() (out []string) {
		for _, r := range members {
			out = append(out, r.bodies()...)
		}
		return slices.Sorted(slices.Values(out))
	}
	s.eventually("all messages of the queue arrive", func() bool { return len(all()) >= n })
	s.quiet()
	return all()
}

func testQueueShares(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.shares"
	var members []*recorder
	for _, at := range []broker.Broker{a, a, b} {
		r, _ := s.record(at, topic, "workers")
		members = append(members, r)
	}
	want := numbered("", 60)
	for i, body := range want {
		s.publish([]broker.Broker{a, b}[i%2], topic, body)
	}
	if got := s.union(len(want), members...); !slices.Equal(got, want) {
		s.Fatalf("the queue got %s\nwant %s", shorten(got), shorten(want))
	}
	for _, r := range members {
		if len(r.bodies()) == len(want) {
			s.Error("one member of the queue got every message: nothing was shared")
		}
	}
}

func testQueuesTogether(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.together"
	groups := make([][]*recorder, 4)
	for _, member := range []struct {
		at    broker.Broker
		queue string
		group int
	}{
		{a, "one", 0}, {b, "one", 0}, {a, "two", 1}, {a, "two", 1}, {a, "", 2}, {b, "", 3},
	} {
		r, _ := s.record(member.at, topic, member.queue)
		groups[member.group] = append(groups[member.group], r)
	}
	want := numbered("", 40)
	for i, body := range want {
		s.publish([]broker.Broker{a, b}[i%2], topic, body)
	}
	for i, group := range groups {
		if got := s.union(len(want), group...); !slices.Equal(got, want) {
			s.Errorf("group %d got %s\nwant %s", i, shorten(got), shorten(want))
		}
	}
}

func testQueueLeave(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.leave"
	_, sub := s.record(a, topic, "q")
	stays, _ := s.record(b, topic, "q")
	if err := sub.Close(); err != nil {
		s.Fatalf("Close of a subscription: %v", err)
	}
	want := numbered("", 20)
	for _, body := range want {
		s.publish(a, topic, body)
	}
	s.exactly(stays, want...)
}

func testQueueNames(s *suite) {
	a, b := s.broker(), s.broker()
	const topic = "brokertest.names"
	names := []string{"q", "Q", "q.a", "q.*", ">", "*", "q q", " q", "q/a", "日本", "$JS", "ff", "0", "\"", "a\nb"}
	var all []*recorder
	for _, name := range names {
		r, _ := s.record(a, topic, name)
		all = append(all, r)
	}
	s.publish(b, topic, "each queue once")
	for i, r := range all {
		s.count(r, 1)
		if i == len(all)-1 {
			s.quiet()
		}
	}
	for i, r := range all {
		if got := r.bodies(); len(got) != 1 {
			s.Errorf("queue %q got %q", names[i], got)
		}
	}
}
