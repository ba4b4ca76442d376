package messaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

func TestFramesAreAsDocumented(t *testing.T) {
	f := serve(t, nil)
	c := f.dial("foo", "")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.at("foo", ""), strings.NewReader("Hello World!"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = http.Header{"Timestamp": {"1499951537"}, "User-Agent": {"x"}}
	if status, detail := f.do(request); status != 200 {
		t.Fatalf("publish: %d %s", status, detail)
	}
	_, data, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Header":{"Timestamp":"1499951537","User-Agent":"x"},"Body":"SGVsbG8gV29ybGQh"}`; string(data) != want {
		t.Errorf("frame %s\nwant  %s", data, want)
	}
}

func TestSizesReachSubscribers(t *testing.T) {
	f := serve(t, nil)
	c := f.dial("t", "")
	for _, size := range []int{0, 1, 20 << 10, 1 << 20, 4 << 20} {
		body := bytes.Repeat([]byte{0xff, 0, 'x', '\n'}, size/4+1)[:size]
		f.publish("t", string(body))
		if got := c.next(); !bytes.Equal(got.Body, body) {
			t.Errorf("%d bytes arrived as %d", size, len(got.Body))
		}
	}
}

func TestFanOut(t *testing.T) {
	f := serve(t, nil)
	var clients []*client
	for range 50 {
		clients = append(clients, f.dial("t", ""))
	}
	const messages = 20
	for i := range messages {
		f.publish("t", fmt.Sprint(i))
	}
	var readers sync.WaitGroup
	for _, c := range clients {
		readers.Go(func() {
			for i := range messages {
				_, data, err := c.Read(t.Context())
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				want, _ := appendFrame(nil, broker.Message{Body: fmt.Append(nil, i)})
				if suffix := want[bytes.Index(want, []byte(`,"Body"`)):]; !bytes.HasSuffix(data, suffix) {
					t.Errorf("message %d: %s", i, data)
				}
			}
		})
	}
	readers.Wait()
	f.eventually("the counters agree", func() bool {
		return f.Counts() == Counts{Subscribers: 50, Published: messages, Delivered: 50 * messages}
	})
}

func TestQueueIsShared(t *testing.T) {
	f := serve(t, nil)
	members := []*client{f.dial("t", "q"), f.dial("t", "q"), f.dial("t", "q")}
	plain := f.dial("t", "")
	var want []string
	for i := range 30 {
		want = append(want, fmt.Sprintf("%02d", i))
		f.publish("t", want[i])
	}
	f.publish("t", "end")
	var got []string
	for range 31 {
		got = append(got, string(plain.next().Body))
	}
	if !slices.Equal(got, append(slices.Clone(want), "end")) {
		t.Errorf("the plain subscriber got %q", got)
	}
	f.eventually("all is delivered", func() bool { return f.Counts().Delivered == 62 })
	go func() { _ = f.Shutdown(t.Context()) }() // ends the reading below
	var shared []string
	for _, c := range members {
		n := 0
		for ; ; n++ {
			_, data, err := c.Read(t.Context())
			if err != nil {
				break
			}
			shared = append(shared, string(data))
		}
		if n == 31 {
			t.Error("one member got everything")
		}
	}
	slices.Sort(shared)
	if len(shared) != 31 || len(slices.Compact(shared)) != 31 {
		t.Errorf("the queue got %d messages, want each of 31 once", len(shared))
	}
}

func TestPublishByFrame(t *testing.T) {
	f := serve(t, nil)
	sender, receiver := f.dial("t", ""), f.dial("t", "")
	for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		for _, body := range []string{"", "hello", "\xff\x00", `{"Header":{},"Body":""}`, strings.Repeat("x", 4<<20)} {
			if err := sender.Write(t.Context(), kind, []byte(body)); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*client{receiver, sender} {
				if got := c.next(); string(got.Body) != body || len(got.Header) > 0 {
					t.Errorf("%v of %d bytes arrived as %q, %d bytes", kind, len(body), got.Header, len(got.Body))
				}
			}
		}
	}
}

func TestFrameOverTheLimit(t *testing.T) {
	f := serve(t, func(o *Options) { o.MaxBodySize = 1000 })
	c := f.dial("t", "")
	if err := c.Write(t.Context(), websocket.MessageBinary, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if got := c.next(); len(got.Body) != 1000 {
		t.Errorf("%d bytes arrived", len(got.Body))
	}
	_ = c.Write(t.Context(), websocket.MessageBinary, make([]byte, 1001))
	if code, reason := c.closed(); code != websocket.StatusMessageTooBig || reason == "" {
		t.Errorf("closed with %v %q", code, reason)
	}
}

// halfBroken takes subscriptions but no messages.
type halfBroken struct {
	broker.Broker
	broken
}

func (b halfBroken) Publish(ctx context.Context, topic string, m broker.Message) error {
	return b.broken.Publish(ctx, topic, m)
}

func (b halfBroken) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	return b.Broker.Subscribe(ctx, topic, o, h)
}

func (b halfBroken) Close() error { return b.Broker.Close() }

func TestFrameThatIsNotPublishedIsNotLostInSilence(t *testing.T) {
	long := fmt.Errorf("engine away: %s", strings.Repeat("é", 100))
	f := serve(t, func(o *Options) { o.Broker = halfBroken{o.Broker, broken{err: long}} })
	c := f.dial("t", "")
	if err := c.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
		t.Fatal(err)
	}
	code, reason := c.closed()
	if code != websocket.StatusTryAgainLater || !strings.HasPrefix(reason, "not published: engine away") {
		t.Errorf("closed with %v %q", code, reason)
	}
}

func TestSlowSubscriberIsCutAlone(t *testing.T) {
	f := serve(t, func(o *Options) { o.Buffer = 16; o.MaxBuffered = 4 << 20 })
	quick, slow := f.dial("t", ""), f.dial("t", "")
	_ = slow // reads nothing
	body := strings.Repeat("x", 256<<10)
	sent := 0
	for ; f.Counts().Cut == 0; sent++ {
		if sent == 1000 {
			t.Fatal("a subscriber that reads nothing was not cut")
		}
		f.publish("t", body)
		quick.next()
	}
	f.eventually("the slow subscriber is gone", func() bool { return f.Counts().Subscribers == 1 })
	f.publish("t", "after")
	if got := quick.next(); string(got.Body) != "after" {
		t.Errorf("the quick one got %d bytes", len(got.Body))
	}
	if n := f.Counts().Cut; n != 1 {
		t.Errorf("Cut = %d", n)
	}
}

func TestSlowSubscriberIsToldWhy(t *testing.T) {
	f := serve(t, func(o *Options) { o.Buffer = 4 })
	c := f.dial("t", "")
	body := strings.Repeat("x", 1<<20)
	for f.Counts().Cut == 0 {
		f.publish("t", body)
	}
	// It wakes up in time to read what was half sent, and then the reason.
	if code, reason := c.closed(); code != websocket.StatusPolicyViolation || !strings.HasPrefix(reason, "slow consumer") {
		t.Errorf("closed with %v %q", code, reason)
	}
}

func TestWriteTimeoutCuts(t *testing.T) {
	f := serve(t, func(o *Options) { o.WriteTimeout = 100 * time.Millisecond; o.Buffer = 1 << 20; o.MaxBuffered = 1 << 40 })
	f.dial("t", "")
	body := strings.Repeat("x", 1<<20)
	for range 20 {
		f.publish("t", body)
	}
	f.eventually("the subscriber is gone", func() bool { return f.Counts().Subscribers == 0 })
	if n := f.Counts().Cut; n != 1 {
		t.Errorf("Cut = %d", n)
	}
}

func TestDeadClientIsNoticed(t *testing.T) {
	t.Parallel()
	f := serve(t, func(o *Options) { o.PingInterval = 50 * time.Millisecond; o.PingTimeout = 4 * time.Second })
	alive := f.dial("t", "")
	go func() { alive.CloseRead(f.Context()) }() // answers pings
	f.raw(upgrade("t", ""))                      // its reader has gone
	mute, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "http://"), "/broker"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	if _, err := mute.Write([]byte(upgrade("t", ""))); err != nil {
		t.Fatal(err)
	}
	if _, err := mute.Read(make([]byte, 1)); err != nil { // it is a subscriber from here on
		t.Fatal(err)
	}
	f.eventually("only the living one is left", func() bool { return f.Counts().Subscribers == 1 })
	time.Sleep(200 * time.Millisecond) // several probes
	if n := f.Counts().Subscribers; n != 1 {
		t.Errorf("%d subscribers, the living one was taken for dead", n)
	}
}

func TestDisconnects(t *testing.T) {
	f := serve(t, nil)
	for _, end := range []func(*client){
		func(c *client) { _ = c.CloseNow() },
		func(c *client) { _ = c.Close(websocket.StatusNormalClosure, "") },
		func(c *client) { _ = c.Close(4000, "bye") },
	} {
		c := f.dial("t", "")
		end(c)
		f.eventually("the subscriber is gone", func() bool { return f.Counts().Subscribers == 0 })
		f.publish("t", "nobody")
	}
	if n := f.Counts().Delivered; n != 0 {
		t.Errorf("Delivered = %d", n)
	}
}

func TestShutdown(t *testing.T) {
	f := serve(t, nil)
	clients := []*client{f.dial("a", ""), f.dial("b", "q")}
	f.publish("a", "last")
	f.publish("b", "last")
	f.eventually("both have arrived", func() bool { return f.Counts().Delivered == 2 })
	done := make(chan error, 1)
	go func() { done <- f.Shutdown(t.Context()) }()
	for _, c := range clients {
		if got := c.next(); string(got.Body) != "last" {
			t.Errorf("got %q", got.Body)
		}
		if code, reason := c.closed(); code != websocket.StatusGoingAway || reason == "" {
			t.Errorf("closed with %v %q", code, reason)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if line := f.raw(upgrade("a", "")); !strings.Contains(line, " 503 ") {
		t.Errorf("subscribe after Shutdown: %s", line)
	}
	f.publish("a", "still taken")
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	for range 20 { // also when the one that is cut leaves before Shutdown looks again
		f := serve(t, nil)
		f.dial("t", "") // never answers the close frame
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v, though a client did not answer", err)
		}
		cancel()
		f.eventually("the connection is cut", func() bool { return f.Counts().Subscribers == 0 })
	}
}

func TestHandshakeRefusals(t *testing.T) {
	f := serve(t, func(o *Options) { o.OriginPatterns = []string{"https://app.example.com"} })
	for _, test := range []struct{ request, want string }{
		{strings.Replace(upgrade("t", ""), "Version: 13", "Version: 12", 1), " 400 "},
		{strings.Replace(upgrade("t", ""), "Key: ", "Nothing: ", 1), " 400 "},
		{strings.Replace(upgrade("t", ""), "Connection: Upgrade", "Connection: keep-alive", 1), " 426 "},
		{upgrade("t", "Origin: https://evil.example.com\r\n"), " 403 "},
		{upgrade("t", "Origin: https://app.example.com\r\n"), " 101 "},
		{upgrade("t", "Origin: http://x\r\n"), " 101 "},
	} {
		if line := f.raw(test.request); !strings.Contains(line, test.want) {
			t.Errorf("%q: %s, want%s", test.request, line, test.want)
		}
	}
	f.eventually("no subscriber is left", func() bool { return f.Counts().Subscribers == 0 })
}
