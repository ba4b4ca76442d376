package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

const empty = "HTTP/1.1 204 No Content\r\n\r\n"

// roundTrip sends r and returns the answer with its body.
func roundTrip(t *testing.T, c *Client, addr string, r *httpmsg.Request) (*httpmsg.Response, string) {
	t.Helper()
	res, err := c.Do(t.Context(), at(addr), r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func get(target string) *httpmsg.Request {
	return &httpmsg.Request{Method: "GET", Target: target, Host: "example.com", Body: http.NoBody}
}

func TestDoSendsTheHeadAsItIs(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return empty, true })
	c := newClient(t, Options{})
	for _, target := range []string{
		"/", "/a%2Fb//c/./d?", "/?", "/x?", "/a/../b", "//x", "//x/y?z=%zz", "//", "/%zz", "/é?ü", "/{a}|\"<b>", "/a:b@c", "/x?a=b?c#d", "*",
	} {
		roundTrip(t, c, w.addr, get(target))
		want := "GET " + target + " HTTP/1.1\r\nHost: example.com\r\n\r\n"
		if got := w.last(); got != want {
			t.Errorf("target %q: sent %q, want %q", target, got, want)
		}
	}
	r := get("/")
	r.Method = "BREW"
	r.Header = httpmsg.Header{{Name: "x-lower", Value: "1"}, {Name: "X-Twice", Value: "a"}, {Name: "X-Twice", Value: "b"}, {Name: "user-agent", Value: "mine/1"},
		{Name: "content-length", Value: "7"}, {Name: "transfer-encoding", Value: "chunked"}, {Name: "Accept-Encoding", Value: "br"}}
	roundTrip(t, c, w.addr, r)
	want := "BREW / HTTP/1.1\r\nHost: example.com\r\nx-lower: 1\r\nX-Twice: a\r\nX-Twice: b\r\nuser-agent: mine/1\r\ncontent-length: 0\r\nAccept-Encoding: br\r\n\r\n"
	if got := w.last(); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	r.Header = httpmsg.Header{{Name: "User-Agent", Value: ""}, {Name: "User-Agent", Value: "two"}}
	roundTrip(t, c, w.addr, r)
	want = "BREW / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: \r\nUser-Agent: two\r\n\r\n"
	if got := w.last(); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections, want one that is kept", n)
	}
}

func TestDoRefusesWhatWouldBecomeAnotherMessage(t *testing.T) {
	c := newClient(t, Options{})
	for _, r := range []*httpmsg.Request{
		{Method: "GET X", Target: "/"}, {Method: "", Target: "/"}, {Method: "GET", Target: ""}, {Method: "GET", Target: "/a b"}, {Method: "GET", Target: "/a\r\nX: y"},
		{Method: "GET", Target: "/", Header: httpmsg.Header{{Name: "a b", Value: ""}}}, {Method: "GET", Target: "/", Header: httpmsg.Header{{Name: "a", Value: "x\r\ny"}}},
	} {
		r.Body = http.NoBody
		var refusal *httpmsg.Error
		if _, err := c.Do(t.Context(), at(testserver.DeadAddr(t)), r); !errors.As(err, &refusal) || refusal.Status != 400 {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestDoBodies(t *testing.T) {
	var got string
	w := startWire(t, func(_, body string) (string, bool) {
		got = body
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n", true
	})
	c := newClient(t, Options{})
	r := get("/")
	r.Body, r.Length = strings.NewReader("hello"), 5
	res, body := roundTrip(t, c, w.addr, r)
	if got != "hello" || !strings.Contains(w.last(), "\r\nContent-Length: 5\r\n") {
		t.Errorf("a GET with a body arrived as %q %q", w.last(), got)
	}
	if body != "abc" || res.Length != -1 || res.Header.Get("Trailer") != "X-Sum" || res.Trailer().Get("X-Sum") != "7" || res.Trailer().Get("X-More") != "8" {
		t.Errorf("answer %q, length %d, header %v, trailer %v", body, res.Length, res.Header, res.Trailer())
	}

	r = get("/")
	r.Body, r.Length = strings.NewReader("hello"), -1
	r.Header = httpmsg.Header{{Name: "Trailer", Value: "X-Sum, Content-Length"}}
	r.Trailer = func() httpmsg.Header { return httpmsg.Header{{Name: "X-Sum", Value: "9"}} }
	roundTrip(t, c, w.addr, r)
	if got != "5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n" || !strings.Contains(w.last(), "\r\nTrailer: X-Sum, Content-Length\r\n") {
		t.Errorf("a chunked body arrived as %q %q", w.last(), got)
	}
}

func TestDoInformationalAndUpgrade(t *testing.T) {
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "Upgrade: echo") {
			return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi", true
		}
		return "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", true
	})
	c := newClient(t, Options{})
	var hints []string
	f := &Forwarding{Informational: func(_ int, h httpmsg.Header) { hints = append(hints, h.Get("Link")) }}
	res, err := c.Forward(t.Context(), at(w.addr), get("/"), f)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || string(body) != "abc" || res.Status != 302 || res.Length != 3 || len(hints) != 1 || hints[0] != "</a>" {
		t.Errorf("answer %+v %q, %v, hints %v", res, body, err, hints)
	}
	if err := res.Body.Close(); err != nil {
		t.Error(err)
	}

	r := get("/")
	r.Header = httpmsg.Header{{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "echo"}}
	res, err = c.Do(t.Context(), at(w.addr), r)
	if err != nil || res.Status != 101 || res.Conn == nil {
		t.Fatalf("upgrade: %+v, %v", res, err)
	}
	defer res.Conn.Close()
	two := make([]byte, 2)
	if _, err := io.ReadFull(res.Conn, two); err != nil || string(two) != "hi" {
		t.Errorf("through the upgraded connection: %q, %v", two, err)
	}
	if _, err := io.WriteString(res.Conn, "GET /tunnelled HTTP/1.1\r\n\r\n"); err != nil {
		t.Error(err)
	}
}

func TestDoWaitsForContinue(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			done <- err.Error()
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		head := string(buf[:n])
		if !strings.HasSuffix(head, "\r\n\r\n") {
			done <- "the body did not wait: " + head
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn) // it is kept, as far as the node knows
		done <- ""
	}()
	c := newClient(t, Options{})
	r := get("/")
	r.Method, r.Body, r.Length = "POST", neverRead{t}, 5
	r.Header = httpmsg.Header{{Name: "Expect", Value: "100-continue"}}
	if res, _ := roundTrip(t, c, l.Addr().String(), r); res.Status != 417 {
		t.Errorf("status %d", res.Status)
	}
	if problem := <-done; problem != "" {
		t.Error(problem)
	}
}

type neverRead struct{ t *testing.T }

func (r neverRead) Read([]byte) (int, error) {
	r.t.Error("a body that the node refused was read")
	return 0, io.EOF
}

func TestDoErrors(t *testing.T) {
	c := newClient(t, Options{})
	_, err := c.Do(t.Context(), at(testserver.DeadAddr(t)), get("/"))
	if e := nodeError(err); e == nil || e.Sent || !NotSent(err) {
		t.Errorf("nobody listens: %#v", err)
	}

	hang := startWire(t, func(string, string) (string, bool) { return "", false })
	_, err = c.Do(t.Context(), at(hang.addr), get("/"))
	if e := nodeError(err); e == nil || !e.Sent || NotSent(err) {
		t.Errorf("a node that closes: %#v", err)
	}

	release := make(chan struct{})
	slow := startWire(t, func(string, string) (string, bool) { <-release; return empty, false })
	for limit := 50 * time.Millisecond; ; limit *= 4 { // a busy machine may not have sent it by then
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		_, err = c.Do(ctx, at(slow.addr), get("/"))
		cancel()
		if e := nodeError(err); e == nil || e.Sent || limit > 10*time.Second {
			if e == nil || !e.Sent || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a slow node: %#v", err)
			}
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err = c.Do(ctx, at(slow.addr), get("/")); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that goes: %v", err)
	}
	close(release)

	r := get("/")
	r.Method, r.Body, r.Length = "POST", io.MultiReader(strings.NewReader("ab"), broken{}), 5
	up := startWire(t, func(string, string) (string, bool) { return empty, true })
	if _, err = c.Do(t.Context(), at(up.addr), r); !errors.Is(err, errBroken) || nodeError(err) != nil {
		t.Errorf("a client whose body breaks off: %v", err)
	}

	big := startWire(t, func(string, string) (string, bool) {
		return "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", false
	})
	if _, err = c.Do(t.Context(), at(big.addr), get("/")); nodeError(err) == nil {
		t.Errorf("an endless head: %v", err)
	}
}

// TestDialTimeoutIsTheNodesFault: a connection that cannot be made in time is
// no deadline of the caller, and another node may be asked.
func TestDialTimeoutIsTheNodesFault(t *testing.T) {
	c := newClient(t, Options{DialTimeout: time.Nanosecond})
	up := startWire(t, func(string, string) (string, bool) { return empty, true })
	_, err := c.Do(t.Context(), at(up.addr), get("/"))
	if !NotSent(err) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

var errBroken = errors.New("the client hung up")

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errBroken }
