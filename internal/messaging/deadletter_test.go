package messaging

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestFailuresComeAgainAndDie(t *testing.T) {
	k := keep(t)
	var times []time.Time
	w := k.work(Push{MaxDeliver: 3}, PushOptions{}, func(rw http.ResponseWriter, m posted) {
		times = append(times, time.Now())
		rw.Header().Set("Retry-After", "0")
		rw.WriteHeader(http.StatusInternalServerError)
	})
	k.post("t", "x", "A", "b")
	for attempt := 1; attempt <= 3; attempt++ {
		w.expect("x", attempt)
	}
	k.eventually("it is a dead letter", func() bool { return len(k.letters()) == 1 })
	if d := times[2].Sub(times[1]); d < 300*time.Millisecond {
		t.Errorf("the third attempt came %v after the second", d)
	}
	l := k.letters()[0]
	if l.Attempts != 3 || l.Queue != "q" || l.Topic != "t" || string(l.Body) != "x" || l.Header["A"] != "b" || !strings.Contains(l.Reason, "3 attempts") || !strings.Contains(l.Reason, "500") {
		t.Errorf("dead letter %+v", l)
	}
	k.settledAll("t", "q")
}

func TestDeadAtOnceAndRetried(t *testing.T) {
	k := keep(t)
	var mended atomic.Bool
	w := k.work(Push{DeadLetter: "graves"}, PushOptions{}, func(rw http.ResponseWriter, m posted) {
		if !mended.Load() {
			rw.WriteHeader(http.StatusUnprocessableEntity)
		}
	})
	other := k.read("topic=t&queue=other")
	k.post("t", "x", "A", "b")
	w.expect("x", 1)
	g := other.expect("x", 1)
	other.say(`{"Ack":%q}`, g.ID)
	var letters []Letter
	admin := &Admin{Broker: k.broker, Timeout: long}
	k.eventually("it is a dead letter", func() bool {
		var err error
		if letters, err = admin.DeadLetters(t.Context(), "graves", "", 10); err != nil {
			t.Fatal(err)
		}
		return len(letters) == 1
	})
	mended.Store(true)
	if n, err := admin.Retry(t.Context(), "graves", letters[0].ID); n != 1 || err != nil {
		t.Fatalf("Retry: %d, %v", n, err)
	}
	m := w.expect("x", 1)
	if m.header.Get("A") != "b" || m.header.Get("Micro-Dead-Reason") != "" || m.header.Get("Micro-Only-Queue") != "" {
		t.Errorf("header %v", m.header)
	}
	if n, err := admin.Retry(t.Context(), "graves", ""); n != 0 || err != nil {
		t.Errorf("Retry of none: %d, %v", n, err)
	}
	// The other queue has had it: nothing comes before the next message.
	k.post("t", "next")
	other.expect("next", 1)
}

// A queue of a pattern does not take its own dead letters for messages.
func TestDeadLettersOfPatterns(t *testing.T) {
	k := keep(t)
	got := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("Micro-Topic")
		rw.WriteHeader(http.StatusGone)
	}))
	defer server.Close()
	pushes, err := k.StartPush(t.Context(), Push{Topic: ">", Queue: "all", URL: server.URL, Concurrency: 1}, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pushes.Stop(t.Context()) }()
	k.eventually("the queue is there", func() bool { _, err := k.broker.Queue(t.Context(), ">", "all"); return err == nil })
	k.post("t", "x")
	k.eventually("it is a dead letter", func() bool { return len(k.letters()) == 1 })
	k.settledAll(">", "all")
	if n := len(got); n != 1 {
		t.Errorf("%d messages were posted", n)
	}
}

// A subscriber over WebSocket with a pattern does not get back what it made a
// dead letter, and a queue of another pattern does not get it either: what both
// refuse would never come to rest. Who asks for dead letters gets them, and the
// queues that leave them alone keep nobody from removing them.
func TestDeadLettersBelongToThoseWhoAsk(t *testing.T) {
	k := keep(t)
	r := k.read("topic=orders.%3E&queue=billing")
	other := k.read("topic=%3E&queue=archive")
	asked := k.read("topic=orders.*.dead&queue=alerts")
	_ = k.read("topic=orders.%3E&queue=away").Conn.CloseNow()
	k.post("orders.eu", "poison")
	r.say(`{"Term":%q}`, r.expect("poison", 1).ID)
	letter := asked.expect("poison", 1)
	if letter.Topic != "orders.eu.dead" || letter.Header["Micro-Dead-Queue"] != "billing" {
		t.Errorf("dead letter %+v", letter)
	}
	other.expect("poison", 1) // the message itself
	k.post("orders.eu", "next")
	r.expect("next", 1)
	other.expect("next", 1)
	remove := func(want int) {
		t.Helper()
		if status, text := k.request("DELETE", "dead&topic=orders.eu&all=true", ""); status != want {
			t.Errorf("drop: %d %s, want %d", status, text, want)
		}
	}
	remove(http.StatusNotImplemented) // alerts would lose it
	asked.say(`{"Ack":%q}`, letter.ID)
	k.settledAll("orders.*.dead", "alerts")
	remove(http.StatusOK)
	if status, text := k.request("GET", "dead&topic=orders.eu", ""); status != http.StatusOK || strings.TrimSpace(text) != "[]" {
		t.Errorf("dead letters: %d %s", status, text)
	}
}
