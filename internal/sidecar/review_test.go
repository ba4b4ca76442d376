package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// ways are the two ways in: a connection begins on the fast path, and is
// net/http's from its first request for a path of the sidecar's own.
func ways(t *testing.T, s *running) map[string]*rawClient {
	fast, slow := dial(t, s), dial(t, s)
	if head, body := slow.ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "ok\n" {
		t.Fatalf("got %q %q", head, body)
	}
	return map[string]*rawClient{"fast": fast, "net/http": slow}
}

// TestBothWaysInAgree compares what a client and a node see over both ways in:
// the same but for the order and the case of names. Each connection goes on
// with a second request, unless the answer said that it would not.
func TestBothWaysInAgree(t *testing.T) {
	const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	var answer script
	n, seen := answering(t, func(string, string) string { return answer.get() })
	s := proxying(t, n, nil)
	for _, tt := range []struct{ name, request, answer string }{
		{"a query and odd escapes", "GET /foo/a%2Fb//../c;d?x=%zz&y#z HTTP/1.1\r\nHost: h.example:80\r\n\r\n", hello},
		{"header fields", "GET /foo/ HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: \r\nA: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nTE: trailers\r\nMicro-Token: t\r\nCookie: a=b\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
			"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nConnection: X-Hop\r\nX-Hop: 1\r\nSet-Cookie: b\r\nX-E:\r\nContent-Length: 1\r\n\r\nx"},
		{"a body", "POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nhello", ok204},
		{"an empty body", "POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", ok204},
		{"a body of some size", "PUT /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("0123456789", 10000), hello},
		{"chunks with extensions and trailers", "POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1;a=\"b\"\r\nx\r\n0\r\nX-More: 2\r\nX-Sum: 1\r\nMicro-Token: t\r\n\r\n", ok204},
		{"an empty chunked body", "GET /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok204},
		{"a chunked answer", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"a chunked answer with trailers", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-More: 8\r\nX-Sum: 7\r\n\r\n"},
		{"an answer until the end", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"},
		{"HEAD", "HEAD /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"},
		{"HEAD without a length", "HEAD /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n"},
		{"204", "DELETE /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"},
		{"304", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nContent-Type: a/b\r\n\r\n"},
		{"a redirect", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /a%2Fb\r\nContent-Length: 0\r\n\r\n"},
		{"the last request", "GET /foo/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", hello},
		{"an unknown service", "GET /nosuch/ HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		{"an unknown service and a body", "POST /nosuch/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", ""},
		{"HEAD of nothing", "HEAD /nosuch/ HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		{"a node that talks nonsense", "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 2x0 OK\r\nConnection: close\r\n\r\n"},
		{"a wrong choice", "GET /foo/ HTTP/1.1\r\nHost: h\r\nMicro-Handler: x\r\n\r\n", ""},
		{"a call without a method", "POST /rpc HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", ""},
	} {
		got := map[string]string{}
		for way, c := range ways(t, s) {
			answer.set(tt.answer)
			head, body := c.ask(tt.request)
			got[way] = withoutClock(t, sortedHead(head)) + body
			select {
			case text := <-seen:
				got[way] += "\nnode: " + sortedHead(text)
			default:
			}
			if field(head, "Connection") == "close" {
				if rest, err := c.rest(); rest != "" || err != nil {
					t.Errorf("%s, %s: then %q, %v", tt.name, way, rest, err)
				}
				continue
			}
			answer.set(ok204)
			if head, _ := c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"); head != ok204 {
				t.Errorf("%s, %s: the connection's next answer: %q", tt.name, way, head)
			}
			<-seen
		}
		if got["fast"] != got["net/http"] {
			t.Errorf("%s:\nfast     %q\nnet/http %q", tt.name, got["fast"], got["net/http"])
		}
	}
}

var dateOfAnswer = regexp.MustCompile("\r\ndate: ([^\r]*)")

// withoutClock puts something fixed in the place of the time that an answer's
// head tells, which has to be that of now.
func withoutClock(t *testing.T, head string) string {
	t.Helper()
	return dateOfAnswer.ReplaceAllStringFunc(head, func(field string) string {
		at, err := http.ParseTime(dateOfAnswer.FindStringSubmatch(field)[1])
		if age := time.Since(at); err != nil || age < 0 || age > time.Minute {
			t.Errorf("%q: %v, want the time of now", field, err)
		}
		return "\r\ndate: now"
	})
}

// TestBothWaysInStream compares what comes piece by piece: hints, events,
// tunnels, and answers that break off.
func TestBothWaysInStream(t *testing.T) {
	next := make(chan string)
	events := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		if head := readHead(br); strings.HasPrefix(head, "GET ") {
			for text := range next {
				if text == "end" {
					return
				}
				_, _ = io.WriteString(conn, text)
			}
		}
	})
	defer close(next)
	s := proxying(t, events, nil)
	s.registerRaw("echo", "n", echoing(t))
	for way, c := range ways(t, s) {
		c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
		for _, text := range []string{
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n", "1\r\nd\r\n",
		} {
			next <- text
			buf := make([]byte, len(text))
			if _, err := io.ReadFull(c.br, buf); err != nil || string(buf) != text {
				t.Fatalf("%s: got %q, %v, want %q", way, buf, err, text)
			}
		}
		next <- "end"
		if rest, _ := c.rest(); rest != "" {
			t.Errorf("%s: half an answer ended with %q", way, rest)
		}
	}
	for way, c := range ways(t, s) {
		c.send(strings.Replace(upgrade, "/foo/", "/echo/", 1) + "early")
		if head := readHead(c.br); sortedHead(head) != sortedHead(switched) {
			t.Errorf("%s: got %q", way, head)
		}
		c.send(" late")
		if err := c.conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if rest, err := c.rest(); err != nil || rest != "hi early late bye" {
			t.Errorf("%s: got %q, %v", way, rest, err)
		}
	}
}

// A head does not wait for a chunk of which only the beginning has come.
func TestProxyHeadGoesAheadOfAnUnfinishedChunk(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	seen := make(chan bool)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(conn, head+"3\r\n")
		<-seen
		_, _ = io.WriteString(conn, "abc\r\n0\r\n\r\n")
	})
	c := dial(t, proxying(t, n, nil))
	_ = c.conn.SetDeadline(time.Now().Add(time.Minute))
	c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
	if got := readHead(c.br); got != head {
		t.Errorf("got %q", got)
	}
	close(seen)
	if body := readBody(head, c.br); body != "3\r\nabc\r\n0\r\n\r\n" {
		t.Errorf("got %q", body)
	}
}

// The order and the spelling of names stay, Content-Length's included.
func TestProxyKeepsTheOrderOfAnswers(t *testing.T) {
	const text = "HTTP/1.1 200 Fine\r\nx-b: 1\r\ncontent-length: 1\r\nX-A: 2\r\n\r\n"
	n, _ := answering(t, func(string, string) string { return text + "x" })
	c := dial(t, proxying(t, n, nil))
	if head, _ := c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"); head != text {
		t.Errorf("got %q", head)
	}
}

// A body that came with its head goes on with it, and a connection that was
// kept is used again.
func TestProxySmallBodiesLeaveWithTheHead(t *testing.T) {
	got := make(chan string, 1)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for head := readHead(br); head != ""; head = readHead(br) {
			got <- fmt.Sprint(br.Buffered())
			readBody(head, br)
			_, _ = io.WriteString(conn, ok204)
		}
	})
	c := dial(t, proxying(t, n, nil))
	for range 20 {
		c.ask("POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
		if here := <-got; here != "5" {
			t.Errorf("%s bytes of the body came with the head", here)
		}
	}
	if _, made := n.connections(); made != 1 {
		t.Errorf("%d connections were made", made)
	}
}
