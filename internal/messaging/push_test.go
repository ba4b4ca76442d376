package messaging

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/testserver"
)

func TestPushIsTheMessageItself(t *testing.T) {
	k := keep(t)
	w := k.work(Push{}, PushOptions{}, func(http.ResponseWriter, posted) {})
	header := map[string]string{
		"Content-Type": "application/x-thing", "lower": "kept", "Connection": "close", "Odd Name": "a", "Odd-Value": "b\n",
		"Micro-Id": "order-7", "Traceparent": "00-1-2-3",
	}
	if err := k.broker.Publish(t.Context(), "t", broker.Message{Header: header, Body: []byte("\x00raw\xff")}); err != nil {
		t.Fatal(err)
	}
	m := w.expect("\x00raw\xff", 1)
	for name, want := range map[string]string{
		"Content-Type": "application/x-thing", "Lower": "kept", "Micro-Topic": "t", "Micro-Id": "order-7", "Micro-Attempt": "1",
		"Traceparent": "00-1-2-3", "Micro-Header": `{"Odd Name":"a","Odd-Value":"b\n"}`, "User-Agent": "", "Accept-Encoding": "",
	} {
		if got := m.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	k.settledAll("t", "q")
	k.post("t", "without an Id")
	if m := w.next(); m.header.Get("Micro-Id") == "" {
		t.Error("no Micro-Id")
	}
}

func TestAnswersDecide(t *testing.T) {
	for _, test := range []struct {
		status int
		ack    string
		want   verdict
	}{
		{200, "", done}, {204, "", done}, {299, "", done},
		{400, "", dead}, {404, "", dead}, {410, "", dead}, {422, "", dead},
		{401, "", again}, {403, "", again}, {408, "", again}, {409, "", again}, {429, "", again}, {500, "", again}, {503, "", again}, {302, "", again},
		{500, "ack", done}, {200, "nack", again}, {200, "term", dead}, {404, "nack", again}, {503, " TERM ", dead}, {200, "what", done},
	} {
		resp := &http.Response{StatusCode: test.status, Status: strconv.Itoa(test.status), Header: http.Header{}}
		resp.Header.Set("Micro-Ack", test.ack)
		if got := judge(resp); got.verdict != test.want {
			t.Errorf("%d, Micro-Ack %q: %v, want %v", test.status, test.ack, got.verdict, test.want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:00:00 GMT": 0, "99999999": maxRetryAfter, "999999999999999999999": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for attempt, want := range map[int]time.Duration{1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 8: 25600 * time.Millisecond, 9: backoffMost, 1 << 40: backoffMost} {
		for range 50 {
			if got := backoff(attempt); got < want*8/10 || got > want*12/10 {
				t.Errorf("attempt %d: %v, want %v give or take a fifth", attempt, got, want)
			}
		}
	}
}

func TestNothingCountsWhileUnhealthy(t *testing.T) {
	k := keep(t)
	var gate health.State
	w := k.work(Push{MaxDeliver: 2}, PushOptions{Gate: &gate}, func(rw http.ResponseWriter, m posted) {
		if m.attempt == 1 && m.body == "x" && gate.Healthy() {
			gate.Set(false) // it is noticed while the message is with the application
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	k.post("t", "x")
	select {
	case m := <-w.got:
		t.Fatalf("%q was delivered to an application that is not healthy", m.body)
	case <-time.After(100 * time.Millisecond):
	}
	for range 4 { // more often than max_deliver
		gate.Set(true)
		w.expect("x", 1)
		k.eventually("it is back in the queue", func() bool { i := k.info("t", "q"); return i.Lag+i.Held == 1 && !gate.Healthy() })
	}
	if letters := k.letters(); len(letters) > 0 {
		t.Errorf("dead letters: %+v", letters)
	}
}

// An application that is down makes no good message a bad one.
func TestProbeBeforeBurying(t *testing.T) {
	k := keep(t)
	probe := func(context.Context) error { return errors.New("down") }
	var tries atomic.Int32
	w := k.work(Push{MaxDeliver: 2}, PushOptions{Probe: probe}, func(rw http.ResponseWriter, m posted) {
		if tries.Add(1) <= 4 {
			rw.WriteHeader(http.StatusBadGateway)
		}
	})
	k.post("t", "x")
	w.expect("x", 1)
	for range 4 {
		w.expect("x", 2)
	}
	k.settledAll("t", "q")
	if letters := k.letters(); len(letters) > 0 {
		t.Errorf("dead letters: %+v", letters)
	}
}

func TestUnreachableIsNoAttempt(t *testing.T) {
	k := keep(t)
	address := testserver.DeadAddr(t)
	w := k.work(Push{MaxDeliver: 1, URL: "http://" + address + "/e"}, PushOptions{}, func(http.ResponseWriter, posted) {})
	k.post("t", "x")
	k.eventually("it is tried", func() bool { return k.info("t", "q").Held == 1 })
	l, err := testserver.Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: w.server.Config.Handler, ReadHeaderTimeout: long}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	w.expect("x", 1)
	k.settledAll("t", "q")
}

func TestSlowHandlerIsExtended(t *testing.T) {
	t.Parallel()
	k := keep(t)
	w := k.work(Push{AckWait: 3 * time.Second}, PushOptions{}, func(http.ResponseWriter, posted) {
		<-time.After(7 * time.Second)
	})
	k.post("t", "x")
	w.expect("x", 1)
	k.settledAll("t", "q")
	if n := len(w.got); n > 0 {
		t.Errorf("it was delivered %d times more", n)
	}
}

func TestOrderedPush(t *testing.T) {
	k := keep(t)
	var mu sync.Mutex
	var order []string
	var inside atomic.Int32
	w := k.work(Push{Ordered: true, Concurrency: 8}, PushOptions{}, func(rw http.ResponseWriter, m posted) {
		if inside.Add(1) > 1 {
			t.Error("two at a time")
		}
		defer inside.Add(-1)
		if n, _ := strconv.Atoi(m.body); n%3 == 0 && m.attempt == 1 {
			rw.WriteHeader(http.StatusInternalServerError)
			return
		}
		mu.Lock()
		order = append(order, m.body)
		mu.Unlock()
	})
	second, err := w.StartPush(t.Context(), Push{Topic: "t", Queue: "q", URL: w.server.URL, Ordered: true}, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Stop(t.Context()) }()
	want := make([]string, 12)
	for i := range want {
		want[i] = strconv.Itoa(i)
		k.post("t", want[i])
	}
	k.settledAll("t", "q")
	mu.Lock()
	defer mu.Unlock()
	if strings.Join(order, " ") != strings.Join(want, " ") {
		t.Errorf("order %v", order)
	}
}

func TestConcurrencyBound(t *testing.T) {
	k := keep(t)
	var inside, most atomic.Int32
	release := make(chan struct{})
	w := k.work(Push{Concurrency: 3}, PushOptions{}, func(http.ResponseWriter, posted) {
		n := inside.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		inside.Add(-1)
	})
	for range 20 {
		k.post("t", "x")
	}
	k.eventually("three are under way", func() bool { return inside.Load() == 3 })
	close(release)
	for range 20 {
		w.next()
	}
	k.settledAll("t", "q")
	if n := most.Load(); n != 3 {
		t.Errorf("%d at a time, want 3", n)
	}
}

func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	k := keep(t)
	begun, release := make(chan struct{}), make(chan struct{})
	w := k.work(Push{Concurrency: 1}, PushOptions{}, func(http.ResponseWriter, posted) {
		close(begun)
		<-release
	})
	k.post("t", "one")
	<-begun
	k.post("t", "two")
	w.pushes.Quit()
	k.eventually("the waiting one is back", func() bool { i := k.info("t", "q"); return i.Lag+i.Held == 2 && i.Held <= 2 })
	close(release)
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if err := w.pushes.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
	r := k.read("topic=t&queue=q")
	r.expect("two", 1)
}

func TestStopReturnsWhatDoesNotEnd(t *testing.T) {
	k := keep(t)
	begun, release := make(chan struct{}), make(chan struct{})
	w := k.work(Push{}, PushOptions{}, func(http.ResponseWriter, posted) {
		close(begun)
		<-release
	})
	defer close(release)
	k.post("t", "stuck")
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := w.pushes.Stop(ctx); err == nil {
		t.Error("Stop says nothing of the message that was given back")
	}
	k.read("topic=t&queue=q").expect("stuck", 1) // and it did not count
}

// A topic whose handler hangs holds up no other.
func TestTopicsDoNotWaitForEachOther(t *testing.T) {
	k := keep(t)
	hang := make(chan struct{})
	var hanging atomic.Int32
	got := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			hanging.Add(1)
			<-hang
			return
		}
		got <- r.Header.Get("Micro-Topic")
	}))
	defer server.Close()
	for _, p := range []Push{
		{Topic: "slow", Queue: "q", URL: server.URL + "/slow", Concurrency: 2},
		{Topic: "slow.ordered", Queue: "q", URL: server.URL + "/slow", Concurrency: 1, Ordered: true},
		{Topic: "quick", Queue: "q", URL: server.URL + "/quick", Concurrency: 1},
	} {
		pusher, err := k.StartPush(t.Context(), p, PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pusher.Stop(t.Context()) }()
	}
	defer close(hang)
	for range 50 { // more than may be under way
		k.post("slow", "x")
		k.post("slow.ordered", "x")
	}
	k.eventually("all places are taken", func() bool { return hanging.Load() == 3 })
	for range 20 {
		k.post("quick", "x")
	}
	for range 20 {
		select {
		case <-got:
		case <-time.After(long):
			t.Fatal("the other topic waits")
		}
	}
	k.settledAll("quick", "q")
	if n := hanging.Load(); n != 3 {
		t.Errorf("%d requests hang, want 2 and 1", n)
	}
}
