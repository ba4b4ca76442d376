package messaging

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/micro/sidecar/broker"
)

// A publisher's fields neither steer the request to the application nor speak
// with the sidecar's voice, in whatever spelling.
func TestHeaderDoesNotSteer(t *testing.T) {
	k := keep(t)
	w := k.work(Push{}, PushOptions{}, func(http.ResponseWriter, posted) {})
	hostile := map[string]string{
		"Connection": "Micro-Id", "connection": "close", "Transfer-Encoding": "chunked", "transfer-encoding": "gzip",
		"Content-Length": "1", "content-length": "999", "Host": "evil.example", "HOST": "evil.example",
		"Expect": "100-continue", "Trailer": "X", "te": "trailers", "Upgrade": "websocket", "Micro-Token": "t", "micro-token": "t",
		"Proxy-Authorization": "Basic eA==", "Content-Length ": "7", "Transfer-Encoding\r\nX-Injected": "chunked",
		"micro-topic": "other", "Micro_Topic": "other", "MICRO-ATTEMPT": "99", "micro_attempt": "99",
		"micro-id": "spoofed", "Micro_Id": "spoofed", "Micro-Header": `{"a":"b"}`, "micro-header": "x",
		"X-Split": "a\r\nX-Injected: b", "X-Nul": "a\x00b", "X-Odd": "\xff",
		"Authorization": "Bearer application", "x-Kept": "kept",
	}
	if err := k.broker.Publish(t.Context(), "t", broker.Message{Header: hostile, Body: []byte("the body")}); err != nil {
		t.Fatal(err)
	}
	m := w.expect("the body", 1)
	for name, want := range map[string]string{
		"Micro-Topic": "t", "Micro-Attempt": "1", "Content-Length": "8", "Authorization": "Bearer application", "X-Kept": "kept",
	} {
		if got := m.header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q once", name, got, want)
		}
	}
	if got := m.header.Values("Micro-Id"); len(got) != 1 || got[0] == "spoofed" {
		t.Errorf("Micro-Id: %q, want the queue's own", got)
	}
	if got := m.header.Values("Micro-Header"); len(got) != 1 || !strings.Contains(got[0], `X-Injected: b`) {
		t.Errorf("Micro-Header: %q, want what HTTP cannot carry", got)
	}
	for _, name := range []string{
		"Connection", "Transfer-Encoding", "Host", "Expect", "Trailer", "Te", "Upgrade", "Micro-Token", "Proxy-Authorization",
		"X-Injected", "X-Split", "X-Nul", "Micro_topic", "Micro_attempt", "Micro_id",
	} {
		if got := m.header.Values(name); len(got) > 0 {
			t.Errorf("%s: %q reached the application", name, got)
		}
	}
	k.settledAll("t", "q")
}

// What sidecars tell each other in a header no publisher can say: a message
// with the name of another queue would be passed over by all.
func TestPublishersCannotSpeakForSidecars(t *testing.T) {
	k := keep(t)
	w := k.work(Push{Concurrency: 1}, PushOptions{}, func(http.ResponseWriter, posted) {})
	live := (&fixture{T: t, Messaging: k.Messaging, url: k.url}).dial("t", "")
	r := k.read("topic=t&queue=r")
	check := func(what string) {
		t.Helper()
		m := w.expect(what, 1)
		fromLive, held := live.next(), r.next()
		if string(fromLive.Body) != what || string(held.Body) != what {
			t.Errorf("%s: the subscribers got %q and %q", what, fromLive.Body, held.Body)
		}
		for _, name := range []string{onlyQueueField, deadQueueField, deadTopicField, delayedToField} {
			if m.header.Get(name)+fromLive.Header[name]+held.Header[name] != "" {
				t.Errorf("%s: %s came through", what, name)
			}
		}
		if m.header.Get("Kept") != "yes" {
			t.Errorf("%s: the rest of the header is gone", what)
		}
		r.say(`{"Ack":%q}`, held.ID)
	}
	k.post("t", "posted", onlyQueueField, "nobody", deadQueueField, "q", deadTopicField, "elsewhere", delayedToField, "elsewhere", "Kept", "yes")
	check("posted")
	if status, text := k.request("POST", "topic=t&batch=ndjson", "1\n2\n", onlyQueueField, "nobody", "Kept", "yes"); status != 200 {
		t.Fatalf("batch: %d %s", status, text)
	}
	check("1")
	check("2")
	r.say(`{"Publish":{"Header":{"Micro-Only-Queue":"nobody","micro-dead-queue":"q","Kept":"yes"},"Body":"ZnJhbWU="}}`)
	check("frame")
	k.settledAll("t", "q")
}

// What a client says of a message or gets wrong is as long as it likes; what
// becomes of it is not.
func TestLongWords(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	k.post("t", "x")
	id := r.next().ID
	for _, frame := range []string{
		`{"` + strings.Repeat("x", 1<<20) + `":1}`, `{"Nack":"1","Delay":"` + strings.Repeat("\\u0000", 1<<18) + `"}`, strings.Repeat("[", 1<<20),
		`{"Ack":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		r.say("%s", frame)
		if g := r.next(); g.Error == "" || len(g.Error) > 2*maxSentence {
			t.Errorf("%.40s… was answered with %d bytes: %.100q", frame, len(g.Error), g.Error)
		}
	}
	r.say(`{"Term":%q,"Reason":%q}`, id, "no\r\nX: y\u2028"+strings.Repeat("ä", 1<<20))
	k.settledAll("t", "q")
	letters := k.letters()
	if len(letters) != 1 || len(letters[0].Reason) > maxSentence+len("…") || !strings.HasPrefix(letters[0].Reason, "no\r\nX: y") {
		t.Fatalf("%d dead letters: %.2000s", len(letters), fmt.Sprint(letters))
	}
}

// rude is an application that answers its first request in its own way, and
// the ones that follow well.
type rude struct {
	net.Listener
	first   func(net.Conn)
	begun   atomic.Bool
	written atomic.Int64 // bytes of the first answer
	polite  atomic.Int32 // requests answered well
}

func (a *rude) serve() {
	for {
		conn, err := a.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			for r := bufio.NewReader(conn); ; {
				request, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				if a.begun.CompareAndSwap(false, true) {
					_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10) // so that little is written that nobody reads
					a.first(&counter{Conn: conn, n: &a.written})
					return
				}
				a.polite.Add(1)
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
					return
				}
			}
		}()
	}
}

func (a *rude) listen(t *testing.T) {
	t.Helper()
	var err error
	if a.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	go a.serve()
}

// counter counts what is written.
type counter struct {
	net.Conn
	n *atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// answers says something, and a tail for as long as anybody listens.
func answers(text, tail string) func(net.Conn) {
	return func(conn net.Conn) {
		_, err := io.WriteString(conn, text)
		for tail != "" && err == nil {
			_, err = io.WriteString(conn, tail)
		}
	}
}

// An application may do what it likes: the message comes again or is done, as
// documented, and what is read of an answer is bounded.
func TestRudeApplications(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	elsewhere := &rude{first: answers(ok+"Content-Length: 0\r\n\r\n", "")}
	elsewhere.listen(t)
	long := strings.Repeat("x", 32<<10)
	for name, c := range map[string]struct {
		first func(net.Conn)
		done  bool // by the first answer
	}{
		"garbage":         {answers("SSH-2.0-OpenSSH_9.2\r\n", ""), false},
		"HTTP/0.9":        {answers("<html>well</html>", ""), false},
		"nothing":         {answers("", ""), false},
		"half a head":     {answers(ok+"X-", ""), false},
		"half a body":     {answers(ok+"Content-Length: 10\r\n\r\nhalf", ""), false},
		"bad chunk":       {answers(ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ""), false},
		"two lengths":     {answers(ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", ""), false},
		"odd status":      {answers("HTTP/1.1 2000 OK\r\n\r\n", ""), false},
		"status 099":      {answers("HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", ""), false},
		"endless line":    {answers("HTTP/1.1 200 ", long), false},
		"endless field":   {answers(ok+"X: ", long), false},
		"endless head":    {answers(ok, "X-More: "+long+"\r\n"), false},
		"endless hints":   {answers("", "HTTP/1.1 103 Early Hints\r\nLink: "+long+"\r\n\r\n"), false},
		"endless 100s":    {answers("", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000)), false},
		"endless chunk":   {answers(ok+"Transfer-Encoding: chunked\r\n\r\n1;", long), false},
		"endless trailer": {answers(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-More: "+long+"\r\n"), false},
		"endless body":    {answers(ok+"\r\n", long), true},
		"endless chunks":  {answers(ok+"Transfer-Encoding: chunked\r\n\r\n", "8000\r\n"+long+"\r\n"), true},
		"twice":           {answers(ok+"Content-Length: 0\r\n\r\n"+ok+"Micro-Ack: nack\r\nContent-Length: 0\r\n\r\n", ""), true},
		"closes":          {answers(ok+"Connection: close\r\n\r\n", ""), true},
		"redirect":        {answers("HTTP/1.1 307 There\r\nContent-Length: 0\r\nLocation: http://"+elsewhere.Addr().String()+"/\r\n\r\n", ""), false},
		"see other":       {answers("HTTP/1.1 303 There\r\nContent-Length: 0\r\nLocation: http://"+elsewhere.Addr().String()+"/\r\n\r\n", ""), false},
		"upgrade":         {answers("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", ""), false},
		"Retry-After":     {answers("HTTP/1.1 503 No\r\nRetry-After: -9223372036854775808999\r\nContent-Length: 0\r\n\r\n", ""), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keep(t)
			app := &rude{first: c.first}
			app.listen(t)
			w := &worker{kept: k}
			w.start(Push{URL: "http://" + app.Addr().String(), MaxDeliver: 3}, PushOptions{})
			k.post("t", "x")
			k.eventually("the first answer has come", app.begun.Load)
			k.settledAll("t", "q")
			want := int32(1)
			if c.done {
				want = 0
			}
			if got := app.polite.Load(); got != want {
				t.Errorf("asked %d times more, want %d", got, want)
			}
			if letters := k.letters(); len(letters) > 0 {
				t.Errorf("a dead letter: %q", letters[0].Reason)
			}
			const most = 4 << 20 // what sockets buffer comes on top of what is read
			if n := app.written.Load(); n > most {
				t.Errorf("%d bytes of an answer were taken", n)
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.begun.Load() {
			t.Error("a redirect was followed")
		}
	})
}
