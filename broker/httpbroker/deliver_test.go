package httpbroker

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry/memory"
)

func TestDeadSubscribersDoNotMatter(t *testing.T) {
	r := memory.New()
	b := open(t, r)
	register(t, r, testserver.DeadAddr(t), "micro.http.broker", broadcast, "dead-all", modern("t"))
	register(t, r, testserver.DeadAddr(t), "micro.http.broker", "only-dead", "dead-queue", modern("t"))
	for _, id := range []string{"dead-1", "dead-2", "dead-3"} {
		register(t, r, testserver.DeadAddr(t), "micro.http.broker", "q", id, modern("t"))
	}
	all, _ := subscribe(t, b, "t", "")
	queue, _ := subscribe(t, b, "t", "q")
	for range 20 {
		publish(t, b, "t", "x")
	}
	for range 20 {
		receive(t, all)
		receive(t, queue) // always the one that lives
	}
}

func TestQueueTurnsToAnotherOnlyWhenRefused(t *testing.T) {
	for _, test := range []struct{ status, second int }{{404, 20}, {503, 20}, {500, 10}, {200, 10}} {
		r := memory.New()
		b := open(t, r)
		first := startNode(t, r, "micro.http.broker", "q", "1", modern("t"), false)
		first.status = test.status
		second := startNode(t, r, "micro.http.broker", "q", "2", modern("t"), false)
		for range 20 {
			publish(t, b, "t", "x")
		}
		one, two := len(first.requests()), len(second.requests())
		if test.second == 20 && two != 20 {
			t.Errorf("%d: the second member got %d of 20 messages", test.status, two)
		}
		if test.second != 20 && one+two != 20 {
			t.Errorf("%d: %d deliveries of 20 messages", test.status, one+two)
		}
	}
}

// hanging is a subscriber that answers nothing until it is released.
func hanging(t *testing.T) (addr string, arrived <-chan struct{}) {
	t.Helper()
	release := make(chan struct{})
	got := make(chan struct{}, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		got <- struct{}{}
		<-release
	}))
	t.Cleanup(func() { close(release); s.Close() })
	return s.Listener.Addr().String(), got
}

func TestHangingSubscriberIsWaitedForOnce(t *testing.T) {
	r := memory.New()
	b := open(t, r)
	addr, arrived := hanging(t)
	register(t, r, addr, "micro.http.broker", broadcast, "hangs", modern("t"))
	got, _ := subscribe(t, b, "t", "")
	start := time.Now()
	const messages = 100 // more than may be under way
	for range messages {
		publish(t, b, "t", "x")
	}
	if d := time.Since(start); d < patience || d > patience+wait/2 {
		t.Errorf("%d publishes beside a hanging subscriber took %v, want little more than %v", messages, d, patience)
	}
	for range messages {
		receive(t, got)
	}
	if n := len(arrived); n == 0 || n > maxUnderWay/minWeight {
		t.Errorf("%d deliveries are under way to the hanging subscriber, want 1 to %d", n, maxUnderWay/minWeight)
	}
}

func TestFullMailboxIsAnswered(t *testing.T) {
	r := memory.New()
	b := open(t, r)
	release := make(chan struct{})
	s, err := b.Subscribe(t.Context(), "t", broker.SubscribeOptions{}, func(broker.Delivery) { <-release })
	if err != nil {
		t.Fatal(err)
	}
	services, err := r.Get(t.Context(), "micro.http.broker")
	if err != nil {
		t.Fatal(err)
	}
	n := services[0].Nodes[0]
	payload, err := encode(generations()[0], "t", broker.Message{Body: make([]byte, 4<<20)})
	if err != nil {
		t.Fatal(err)
	}
	status := 200
	for i := 0; i < 2*mailboxBytes/(4<<20) && status == 200; i++ {
		status, _ = post(t, "http://"+n.HostPort()+"/?id="+n.ID, payload)
	}
	if status != 503 {
		t.Errorf("a subscriber that takes nothing answered %d, want 503", status)
	}
	close(release)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSweepForgetsIdlePeers(t *testing.T) {
	p, now := newPeers(), time.Now()
	p.get(node{"a", "1"}, now)
	later := now.Add(peerIdle + time.Second)
	p.get(node{"a", "2"}, later)
	p.get(node{"a", "2"}, later.Add(peerIdle+time.Second))
	if n := len(p.byNode); n != 1 {
		t.Errorf("%d peers are remembered, want 1", n)
	}
}
