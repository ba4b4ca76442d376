package messaging

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
)

// long bounds what must happen on a real engine on a busy machine.
const long = 30 * time.Second

// kept is a Messaging over a real embedded engine.
type kept struct {
	*testing.T
	*Messaging
	broker *nats.Broker
	engine *engine.Engine
	url    string
	stop   func()
}

// keep starts an engine in a directory of its own, and a Messaging over it.
func keep(t *testing.T) *kept {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return keepOn(t, e, nats.Options{})
}

func keepOn(t *testing.T, e *engine.Engine, o nats.Options) *kept {
	t.Helper()
	return keepWith(t, e, o, func(*Options) {})
}

func keepWith(t *testing.T, e *engine.Engine, o nats.Options, change func(*Options)) *kept {
	t.Helper()
	b, err := nats.New(t.Context(), e.MessagesConn(), o)
	if err != nil {
		t.Fatal(err)
	}
	options := Options{Broker: b, Fail: fail, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	change(&options)
	m := New(options)
	server := httptest.NewServer(m)
	k := &kept{T: t, Messaging: m, broker: b, engine: e, url: server.URL + "/broker"}
	k.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	t.Cleanup(func() {
		k.stop()
		server.Close()
		_ = b.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return k
}

// request makes one and returns status and body.
func (k *kept) request(method, query, body string, header ...string) (int, string) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), long)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, k.url+"?"+query, strings.NewReader(body))
	if err != nil {
		k.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		k.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		k.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (k *kept) post(topic, body string, header ...string) {
	k.Helper()
	if status, text := k.request("POST", "topic="+url.QueryEscape(topic), body, header...); status != 200 {
		k.Fatalf("publish: %d %s", status, text)
	}
}

// reader is a durable subscriber.
type reader struct {
	*kept
	*websocket.Conn
}

// given is any frame that a durable subscriber gets.
type given struct {
	ID      string `json:"Id"`
	Header  map[string]string
	Body    []byte
	Attempt int
	Topic   string

	Error, Published string
}

func (k *kept) read(query string) *reader {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), long)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, k.url+"?ack=true&"+query, nil)
	if err != nil {
		text := []byte{}
		if resp != nil {
			text, _ = io.ReadAll(resp.Body)
		}
		k.Fatalf("subscribe: %v %s", err, text)
	}
	conn.SetReadLimit(8 << 20)
	k.Cleanup(func() { _ = conn.CloseNow() })
	return &reader{k, conn}
}

func (r *reader) next() given {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), long)
	defer cancel()
	_, data, err := r.Conn.Read(ctx)
	if err != nil {
		r.Fatalf("read a frame: %v", err)
	}
	var g given
	if err := json.Unmarshal(data, &g); err != nil {
		r.Fatalf("frame %s: %v", data, err)
	}
	return g
}

func (r *reader) expect(body string, attempt int) given {
	r.Helper()
	g := r.next()
	if string(g.Body) != body || g.Attempt != attempt || g.Error != "" {
		r.Fatalf("frame %+v, want body %q, attempt %d", g, body, attempt)
	}
	return g
}

func (r *reader) say(frame string, args ...any) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), long)
	defer cancel()
	if err := r.Write(ctx, websocket.MessageText, fmt.Appendf(nil, frame, args...)); err != nil {
		r.Fatal(err)
	}
}

func (r *reader) complaint(about, text string) {
	r.Helper()
	if g := r.next(); g.ID != about || !strings.Contains(g.Error, text) {
		r.Fatalf("frame %+v, want an error about %q with %q", g, about, text)
	}
}

func TestAckFramesAreAsDocumented(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	k.post("t", "Hello World!", "Timestamp", "1499951537", "User-Agent", "x")
	_, data, err := r.Conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var id struct{ Id string } //nolint:revive // as the frame has it
	if err := json.Unmarshal(data, &id); err != nil || id.Id == "" {
		t.Fatalf("%s: %v", data, err)
	}
	want := fmt.Sprintf(`{"Id":%q,"Header":{"Accept-Encoding":"","Timestamp":"1499951537","User-Agent":"x"},"Body":"SGVsbG8gV29ybGQh","Attempt":1}`, id.Id)
	want = strings.Replace(want, `"Accept-Encoding":"",`, "", 1)
	if string(data) != want {
		t.Errorf("frame %s\nwant  %s", data, want)
	}
	r.say(`{"Ack":%q}`, id.Id)
	r.say(`{"Ack":%q}`, id.Id)
	r.complaint(id.Id, "settled before")
	r.say(`{"Nack":"nonsense"}`)
	r.complaint("nonsense", "no message with this Id")
	for _, bad := range []string{`{`, `[]`, `{}`, `{"Ack":"1","Term":"1"}`, `{"Ack":""}`, `{"Ack":"1","Delay":"1s"}`, `{"Nack":"1","Delay":"soon"}`, `{"Ack":1}`, `{"Surprise":"1"}`, `{"Ack":"1"} x`} {
		r.say("%s", bad)
		if g := r.next(); !strings.Contains(g.Error, "malformed frame") {
			t.Errorf("%s: %+v", bad, g)
		}
	}
	k.post("t", "still there")
	r.expect("still there", 1)
}

// What is wrong with a frame is said in the terms of its writer, with the Id.
func TestFrameFaults(t *testing.T) {
	for frame, want := range map[string]string{
		``:                                   "it is empty",
		`{`:                                  "it ends early",
		`[]`:                                 "it is of type array and not an object",
		`{"Ack":1}`:                          "Ack is of type number and not a string",
		`{"Publish":"x"}`:                    "Publish is of type string and not an object",
		`{"Publish":{"Header":{"A":1}}}`:     "Publish.Header is of type number and not a string",
		`{"Publish":{"Body":1}}`:             "Publish.Body is of type number and not base64 in a string",
		`{"Publish":{"Id":"p1","Body":"!"}}`: "Body is not base64",
		`{"Ack":"7","Reasn":"x"}`:            `unknown field "Reasn"`,
		"{\"Publish\":{\"Body\":\"\x00\"}}":  "invalid character",
	} {
		c, err := parseCommand([]byte(frame))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: %v, want %q", frame, err, want)
		}
		if strings.Contains(frame, "p1") && c.ID != "p1" || strings.Contains(frame, "7") && c.ID != "7" {
			t.Errorf("%s: the error is about %q", frame, c.ID)
		}
	}
}

func TestNackTermProgressPublish(t *testing.T) {
	t.Parallel()
	k := keep(t)
	r := k.read("topic=t&queue=q&ack_wait=3s")
	r.say(`{"Publish":{"Id":"p1","Header":{"A":"b"},"Body":%q}}`, base64.StdEncoding.EncodeToString([]byte("one")))
	first := r.next()
	second := r.next()
	if first.Published == "" { // the message may be quicker than the word that it is stored
		first, second = second, first
	}
	if first.Published != "p1" || string(second.Body) != "one" || second.Header["A"] != "b" {
		t.Fatalf("frames %+v and %+v", first, second)
	}
	r.say(`{"Nack":%q,"Delay":"10ms"}`, second.ID)
	again := r.expect("one", 2)
	start := time.Now()
	for time.Since(start) < 7*time.Second { // more than twice its time
		r.say(`{"Progress":%q}`, again.ID)
		<-time.After(200 * time.Millisecond)
	}
	r.say(`{"Term":%q,"Reason":"no such customer"}`, again.ID)
	var letters []Letter
	k.eventually("there is a dead letter", func() bool {
		status, text := k.request("GET", "dead&topic=t", "")
		return status == 200 && json.Unmarshal([]byte(text), &letters) == nil && len(letters) == 1
	})
	l := letters[0]
	if l.Reason != "no such customer" || l.Attempts != 2 || l.Queue != "q" || l.Topic != "t" || string(l.Body) != "one" || l.Header["A"] != "b" || l.First == "" || l.Last == "" {
		t.Errorf("dead letter %+v", l)
	}
	// What runs out of time comes again, and its old Id means the new delivery.
	k.post("t", "slow")
	r.expect("slow", 1)
	g := r.expect("slow", 2)
	r.say(`{"Ack":%q}`, g.ID)
	k.settledAll("t", "q")
}

// eventually polls a condition of the engine.
func (k *kept) eventually(what string, ok func() bool) {
	k.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(long); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			k.Fatalf("not within %v: %s", long, what)
		}
	}
}

func (k *kept) info(topic, queue string) broker.QueueInfo {
	k.Helper()
	info, err := k.broker.Queue(k.Context(), topic, queue)
	if err != nil {
		k.Fatal(err)
	}
	return info
}

// settledAll waits until nothing is left in a queue.
func (k *kept) settledAll(topic, queue string) {
	k.Helper()
	k.eventually("everything is acknowledged", func() bool {
		i := k.info(topic, queue)
		return i.Lag+i.Held == 0
	})
}

func TestPrefetchOfWebSocket(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q&prefetch=2")
	for i := range 5 {
		k.post("t", fmt.Sprint(i))
	}
	zero, one := r.expect("0", 1), r.expect("1", 1)
	k.eventually("two are held", func() bool { i := k.info("t", "q"); return i.Held == 2 && i.Lag == 3 })
	r.say(`{"Ack":%q}`, one.ID)
	r.expect("2", 1)
	k.eventually("two are held again", func() bool { i := k.info("t", "q"); return i.Held == 2 && i.Lag == 2 })
	r.say(`{"Ack":%q}`, zero.ID)
	r.expect("3", 1)
}

func TestClosedConnectionReturnsMessages(t *testing.T) {
	k := keep(t)
	for _, how := range []func(*reader){
		func(r *reader) { _ = r.CloseNow() },
		func(r *reader) { _ = r.Close(websocket.StatusNormalClosure, "") },
	} {
		r := k.read("topic=t&queue=q")
		k.post("t", "x")
		r.expect("x", 1)
		how(r)
		other := k.read("topic=t&queue=q")
		start := time.Now()
		g := other.expect("x", 2)
		if took := time.Since(start); took > broker.DefaultAckWait/2 {
			t.Errorf("it came after %v", took)
		}
		other.say(`{"Ack":%q}`, g.ID)
		k.settledAll("t", "q")
		_ = other.Close(websocket.StatusNormalClosure, "")
	}
}

func TestShutdownReturnsUncounted(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	k.post("t", "x")
	r.expect("x", 1)
	closed := make(chan error, 1)
	go func() {
		_, _, err := r.Conn.Read(context.Background())
		closed <- err
	}()
	k.stop()
	if err := <-closed; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("closed with %v, want 1001", err)
	}
	next := keepOn(t, k.engine, nats.Options{})
	next.read("topic=t&queue=q").expect("x", 1)
}

func TestIDAndDelay(t *testing.T) {
	k := keep(t)
	running, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.RunDelayed(running)
	}()
	defer func() {
		stop()
		<-done
	}()
	r := k.read("topic=t&queue=q")
	live := k.read("topic=other&queue=q")
	for range 3 {
		k.post("t", "once", "Micro-Id", "order-1")
	}
	start := time.Now()
	k.post("t", "late", "Micro-Delay", "700ms")
	k.post("t", "now")
	r.expect("once", 1)
	r.expect("now", 1)
	g := r.expect("late", 1)
	if d := time.Since(start); d < 700*time.Millisecond {
		t.Errorf("delivered after %v", d)
	}
	for name := range g.Header {
		if strings.HasPrefix(name, "Micro-Delay") {
			t.Errorf("header %s: %s", name, g.Header[name])
		}
	}
	for _, bad := range []string{"soon", "-1s", "100000h"} {
		if status, _ := k.request("POST", "topic=t", "x", "Micro-Delay", bad); status != 400 {
			t.Errorf("Micro-Delay: %s: %d", bad, status)
		}
	}
	_ = live.CloseNow()
}

func TestBatch(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	status, text := k.request("POST", "topic=t&batch=ndjson", "{\"a\":1}\r\n\n[2]\n\"three\"", "Micro-Id", "b", "Content-Type", "application/x-ndjson", "Source", "s")
	if status != 200 || strings.TrimSpace(text) != `{"published":3,"failed":[]}` {
		t.Fatalf("%d %s", status, text)
	}
	for i, body := range []string{`{"a":1}`, `[2]`, `"three"`} {
		g := r.expect(body, 1)
		id := []string{"b-1", "b-3", "b-4"}[i]
		if g.Header["Content-Type"] != "application/json" || g.Header["Source"] != "s" || g.Header["Micro-Id"] != id {
			t.Errorf("header %v", g.Header)
		}
	}
	status, text = k.request("POST", "topic=t&batch=ndjson", "1\noops\n3\n")
	var answer batchAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 400 || answer.Published != 2 || len(answer.Failed) != 1 || answer.Failed[0].Line != 2 || answer.ID == "" {
		t.Errorf("%d %s", status, text)
	}
	large := strings.Repeat("1", 5<<20)
	if status, text = k.request("POST", "topic=t&batch=ndjson", large+"\n7\n"); status != 413 || !strings.Contains(text, `"published":1`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ = k.request("POST", "topic=t&batch=csv", "1"); status != 400 {
		t.Errorf("batch=csv: %d", status)
	}
}

// CloudEvents pass as they came, in both modes of HTTP.
func TestCloudEvents(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	k.post("t", `{"a": 1}`, "Ce-Specversion", "1.0", "Ce-Type", "com.example", "Ce-Source", "/s?x=%20", "Ce-Id", "7", "Content-Type", "application/json")
	g := r.next()
	if string(g.Body) != `{"a": 1}` || g.Header["Ce-Source"] != "/s?x=%20" || g.Header["Ce-Specversion"] != "1.0" || g.Header["Content-Type"] != "application/json" {
		t.Errorf("binary mode: %+v", g)
	}
	event := `{ "specversion" : "1.0", "type":"com.example", "source":"/s", "id":"7", "data":{"a": 1}}`
	k.post("t", event, "Content-Type", "application/cloudevents+json")
	if g := r.next(); string(g.Body) != event || g.Header["Content-Type"] != "application/cloudevents+json" {
		t.Errorf("structured mode: %+v", g)
	}
}

func TestFullIs507(t *testing.T) {
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	k := keepOn(t, e, nats.Options{MaxBytes: 1 << 20})
	r := k.read("topic=t&queue=q&prefetch=100")
	stored := 0
	var status int
	var text string
	for range 100 {
		if status, text = k.request("POST", "topic=t", strings.Repeat("x", 64<<10)); status != 200 {
			break
		}
		stored++
	}
	if status != http.StatusInsufficientStorage || stored == 0 {
		t.Fatalf("after %d messages: %d %s", stored, status, text)
	}
	for range stored { // nothing was dropped
		g := r.next()
		r.say(`{"Ack":%q}`, g.ID)
	}
	k.eventually("there is room again", func() bool {
		status, _ := k.request("POST", "topic=t", "fits")
		return status == 200
	})
	r.expect("fits", 1)
}

func TestDurableRefusals(t *testing.T) {
	k := keep(t)
	many := make([]string, 0, 600)
	for i := range 300 {
		many = append(many, fmt.Sprintf("H-%d", i), "x")
	}
	for _, test := range []struct {
		method, query string
		want          int
		header        []string
	}{
		{"GET", "ack=true&topic=t", 400, nil},
		{"GET", "ack=yes&topic=t&queue=q", 400, nil},
		{"GET", "ack=true&topic=t&queue=q&prefetch=0", 400, nil},
		{"GET", "ack=true&topic=t&queue=q&prefetch=1001", 400, nil},
		{"GET", "ack=true&topic=t&queue=q&ack_wait=1ms", 400, nil},
		{"GET", "topic=t&queue=q&prefetch=2", 400, nil},
		{"GET", "queues&topic=t&queue=q", 404, nil},
		{"GET", "dead", 400, nil},
		{"GET", "dead&topic=t&limit=x", 400, nil},
		{"POST", "dead=bury&topic=t", 400, nil},
		{"DELETE", "dead&topic=t", 400, nil},
		{"DELETE", "dead&topic=t&all=yes", 400, nil},
		{"DELETE", "dead&topic=t&all=true&id=1", 400, nil},
		{"DELETE", "topic=t&queue=q", 404, nil},
		{"DELETE", "topic=t&queue=q&purge=yes", 400, nil}, // and nothing is deleted
		{"GET", "topic=t&queue=q&akc=true", 400, nil},
		{"GET", "topic=t&queue=q&ack=true&prefech=3", 400, nil},
		{"POST", "Topic=t", 400, nil},
		{"POST", "topic=t&x=y&version=1", 200, nil}, // what is like none of ours
		{"DELETE", "topic=t&queue=q&purge=true", 404, nil},
		{"POST", "topic=t", 431, many},
		{"POST", "topic=t", 400, []string{"Micro-Id", strings.Repeat("x", 300)}},
	} {
		if status, text := k.request(test.method, test.query, "", test.header...); status != test.want {
			t.Errorf("%s ?%s: %d %s, want %d", test.method, test.query, status, text, test.want)
		}
	}
}

// A broker that keeps nothing says so instead of pretending.
func TestNotDurable(t *testing.T) {
	f := serve(t, func(o *Options) { o.Name = "memory" })
	for _, test := range [][3]string{
		{"GET", "queues", ""}, {"GET", "dead&topic=t", ""}, {"DELETE", "topic=t&queue=q", ""}, {"POST", "topic=t", "1s"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), test[0], f.url+"?"+test[1], nil)
		if err != nil {
			t.Fatal(err)
		}
		if test[2] != "" {
			req.Header.Set("Micro-Delay", test[2])
		}
		if status, text := f.do(req); status != 501 {
			t.Errorf("%s ?%s: %d %s", test[0], test[1], status, text)
		}
	}
	_, resp, err := websocket.Dial(t.Context(), f.url+"?topic=t&queue=q&ack=true", nil)
	if err == nil || resp == nil || resp.StatusCode != 501 {
		t.Fatalf("ack=true: %v", err)
	}
	text, _ := io.ReadAll(resp.Body)
	if !bytes.HasSuffix(bytes.TrimSpace(text), []byte("the memory broker keeps no messages")) {
		t.Errorf("%s", text)
	}
	if _, err := f.StartPush(t.Context(), Push{Topic: "t", Queue: "q"}, PushOptions{}); err == nil {
		t.Error("StartPush: no error")
	}
}

func TestPatternsTellTopics(t *testing.T) {
	k := keep(t)
	r := k.read("topic=orders.*&queue=q")
	k.post("orders.eu", "x")
	k.post("orders", "no")
	k.post("orders.us", "y")
	var topics []string
	for range 2 {
		topics = append(topics, r.next().Topic)
	}
	if !slices.Equal(topics, []string{"orders.eu", "orders.us"}) {
		t.Errorf("topics %q", topics)
	}
}

func FuzzCommand(f *testing.F) {
	for _, seed := range []string{
		`{"Ack":"1"}`, `{"Nack":"1","Delay":"5s"}`, `{"Term":"1","Reason":"r"}`, `{"Progress":"1"}`,
		`{"Publish":{"Header":{"a":"b"},"Body":"eA==","Id":"1","Delay":"1s"}}`, `{"Ack":null}`, `{"ack":"1"}`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseCommand(data)
		if err != nil {
			return
		}
		if c.Verb != "Publish" && c.ID == "" || c.Delay < 0 || c.Delay > maxDelay || len(c.Message.Header) > maxHeaders {
			t.Fatalf("%q: %+v", data, c)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("1\n2\r\n\n3"), int64(10))
	f.Add(bytes.Repeat([]byte("x"), 10000), int64(100))
	f.Fuzz(func(t *testing.T, data []byte, limit int64) {
		limit = 1 + (limit&0xffff+0x10000)&0xffff
		want := bytes.Split(data, []byte("\n"))
		if len(want[len(want)-1]) == 0 {
			want = want[:len(want)-1]
		}
		lines := newLineReader(bytes.NewReader(data), limit)
		for i, line := range want {
			line = bytes.TrimSuffix(line, []byte("\r"))
			got, err := lines.next()
			if int64(len(line)) > limit {
				if err == nil {
					t.Fatalf("line %d of %d bytes was taken, the limit is %d", i, len(line), limit)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, line) {
				t.Fatalf("line %d: %q, %v; want %q", i, got, err, line)
			}
		}
		if got, err := lines.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the end: %q, %v", got, err)
		}
	})
}
