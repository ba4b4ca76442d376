package messaging

import (
	"context"
	"errors"
	"io"
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

// posted is a request that the application got.
type posted struct {
	body    string
	header  http.Header
	attempt int
}

// worker is an application that takes messages.
type worker struct {
	*kept
	server *httptest.Server
	got    chan posted
	pushes *Pusher
}

// work posts the messages of topic t, queue q to an application.
func (k *kept) work(p Push, o PushOptions, answer func(w http.ResponseWriter, m posted)) *worker {
	k.Helper()
	w := &worker{kept: k, got: make(chan posted, 1000)}
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			k.Errorf("read a message: %v", err)
		}
		attempt, _ := strconv.Atoi(r.Header.Get("Micro-Attempt"))
		m := posted{string(body), r.Header, attempt}
		w.got <- m
		answer(rw, m)
	}))
	w.start(p, o)
	return w
}

// start begins to post, again if need be.
func (w *worker) start(p Push, o PushOptions) {
	w.Helper()
	p.Topic, p.Queue = "t", "q"
	if p.URL == "" {
		p.URL = w.server.URL + "/events"
	}
	if p.Concurrency == 0 {
		p.Concurrency = 4
	}
	var err error
	if w.pushes, err = w.StartPush(w.Context(), p, o); err != nil {
		w.Fatal(err)
	}
	pushes := w.pushes
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		_ = pushes.Stop(ctx)
		if w.server != nil {
			w.server.Close()
		}
	})
	w.eventually("the queue is there", func() bool {
		_, err := w.broker.Queue(w.Context(), "t", "q")
		return err == nil
	})
}

func (w *worker) next() posted {
	w.Helper()
	select {
	case m := <-w.got:
		return m
	case <-time.After(long):
		w.Fatal("no message came")
		return posted{}
	}
}

func (w *worker) expect(body string, attempt int) posted {
	w.Helper()
	m := w.next()
	if m.body != body || m.attempt != attempt {
		w.Fatalf("got %q, attempt %d; want %q, attempt %d", m.body, m.attempt, body, attempt)
	}
	return m
}

func (k *kept) letters() []Letter {
	k.Helper()
	letters, err := (&Admin{Broker: k.broker, Timeout: long}).DeadLetters(k.Context(), "t", "", 100)
	if err != nil {
		k.Fatal(err)
	}
	return letters
}

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
