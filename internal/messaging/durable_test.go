package messaging

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
)

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
