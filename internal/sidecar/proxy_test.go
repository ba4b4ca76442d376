package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

func TestProxyTargetsGoByteForByte(t *testing.T) {
	n, seen := answering(t, func(string, string) string { return ok204 })
	s := proxying(t, n, nil)
	c := dial(t, s)
	for _, target := range []string{
		"/foo", "/foo/", "/foo?", "/foo/?", "/foo/a%2Fb%2f", "/foo/%23x", "/foo/%00%01%1F", "/foo//a///b", "/foo/./a/../b/..", "/foo/a;b;c=1",
		"/foo/x?a;b&c=%zz#frag", "/foo/\u00e9t\u00e9?\u00fc=\xff", "/foo/%C3%A9", "/foo/a+b%20c", "/foo/x??&&=", "/foo/{a}|\"<b>^`", "/foo/a:b@c", "/%66oo/x",
		"/foo/x?next=http://other/a?b", "/foo/" + strings.Repeat("p", 8<<10), "/foo/x?" + strings.Repeat("q=%2F&", 8<<10/6), "//foo/x?y",
	} {
		head, _ := c.ask("GET " + target + " HTTP/1.1\r\nHost: h.example\r\n\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 204 ") {
			t.Fatalf("target %q: %s", target, head)
		}
		if got := strings.SplitN(<-seen, "\r\n", 2)[0]; got != "GET "+target+" HTTP/1.1" {
			t.Errorf("target %q reached the node as %q", target, got)
		}
	}
	c.ask("GET http://other.example:81/foo/%2F?x HTTP/1.1\r\nHost: ignored\r\n\r\n")
	if got := <-seen; !strings.HasPrefix(got, "GET /foo/%2F?x HTTP/1.1\r\nHost: other.example:81\r\n") {
		t.Errorf("an absolute target reached the node as %q", got)
	}
	for _, method := range []string{"HEAD", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "get", "BREW!"} {
		c.ask(method + " /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
		if got := <-seen; !strings.HasPrefix(got, method+" /foo/ HTTP/1.1\r\n") {
			t.Errorf("method %s reached the node as %q", method, got)
		}
	}
}

func TestProxyRequestHeader(t *testing.T) {
	n, seen := answering(t, func(string, string) string { return ok204 })
	s := proxying(t, n, nil)
	const tail = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: h\r\nX-Forwarded-Proto: http\r\n\r\n"
	for _, tt := range []struct{ name, sent, got string }{
		{"nothing is invented", "", tail},
		{"repetition, order of values, empty and odd values", "A: 1\r\nB: \r\nA: 2\r\nC: \xff\xe9\t\"x\"; y=,,\r\nA: 1\r\nUser-Agent: me/1\r\nAccept-Encoding: gzip;q=0\r\n",
			"User-Agent: me/1\r\nA: 1\r\nA: 2\r\nA: 1\r\nAccept-Encoding: gzip;q=0\r\nB: \r\nC: \xff\xe9\t\"x\"; y=,,\r\n" + tail},
		{"an empty User-Agent", "User-Agent:\r\nUser-Agent: two\r\n", "User-Agent: \r\nUser-Agent: two\r\n" + tail},
		{"hop-by-hop fields end here", "Connection: x-a, Keep-Alive,X-B ,close-not\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nClose-Not: 1\r\n",
			"X-C: 3\r\n" + tail},
		{"the sidecar's token stays here", "Micro-Token: secret\r\nmicro-token: secret2\r\nAuthorization: Bearer t\r\nMicro-Other: x\r\n", "Authorization: Bearer t\r\nMicro-Other: x\r\n" + tail},
		{"X-Forwarded-*", "X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nX-Forwarded-For: 10.0.0.3\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n",
			"X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\nX-Forwarded-For: 10.0.0.3, 127.0.0.1\r\nX-Forwarded-Host: shop\r\nX-Forwarded-Proto: https\r\n\r\n"},
		{"cookies", "Cookie: a=b; c=d\r\nCookie: e=\r\nRange: bytes=0-\r\nIf-None-Match: W/\"x\"\r\n", "Cookie: a=b; c=d\r\nCookie: e=\r\nIf-None-Match: W/\"x\"\r\nRange: bytes=0-\r\n" + tail},
	} {
		c := dial(t, s)
		c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n" + tt.sent + "\r\n")
		if got, want := sortedHead(<-seen), sortedHead("GET /foo/ HTTP/1.1\r\nHost: h\r\n"+tt.got); got != want {
			t.Errorf("%s: the node got\n%q\nwant\n%q", tt.name, got, want)
		}
	}
}

// sortedHead brings the fields of a head into alphabetical order, keeping that
// of repeated ones: order comes with the codec of our own.
func sortedHead(text string) string {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	name := func(line string) string { n, _, _ := strings.Cut(line, ":"); return strings.ToLower(n) }
	for i := 2; i < len(lines); i++ {
		for j := i; j > 1 && name(lines[j]) < name(lines[j-1]); j-- {
			lines[j], lines[j-1] = lines[j-1], lines[j]
		}
	}
	for i := 1; i < len(lines); i++ {
		n, v, _ := strings.Cut(lines[i], ":")
		lines[i] = strings.ToLower(n) + ":" + v
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

func TestProxyBodiesKeepTheirFraming(t *testing.T) {
	n, seen := answering(t, func(string, string) string { return ok204 })
	c := dial(t, proxying(t, n, nil))
	for _, tt := range []struct{ sent, length, te, body string }{
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "5", "", "hello"},
		{"GET /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", "5", "", "hello"},
		{"DELETE /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n\x00\xff", "2", "", "\x00\xff"},
		{"GET /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "", "chunked", "5\r\nhello\r\n0\r\n\r\n"},
		{"PUT /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", "chunked", "0\r\n\r\n"},
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "0", "", ""},
		{"DELETE /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", "0", "", ""},
		{"GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "", "", ""},
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "", "", ""},
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\nMicro-Token: no\r\n\r\n", "", "chunked",
			"1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n"},
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Unannounced: 8\r\n\r\n", "", "chunked", "1\r\nx\r\n0\r\nX-Unannounced: 8\r\n\r\n"},
	} {
		c.ask(tt.sent)
		head, body, _ := strings.Cut(<-seen, "\r\n\r\n")
		if field(head, "Content-Length") != tt.length || field(head, "Transfer-Encoding") != tt.te || body != tt.body {
			t.Errorf("%q\n reached the node as %q %q", tt.sent, head, body)
		}
	}
}

func TestProxyAnswers(t *testing.T) {
	var answer script
	n, _ := answering(t, func(string, string) string { return answer.get() })
	s := proxying(t, n, nil)
	zipped := "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"
	for _, tt := range []struct{ name, method, answer, head, body string }{
		{"nothing is invented", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", "<html>"},
		{"repetition, empty and odd values", "GET", "HTTP/1.1 404 Not Found\r\nSet-Cookie: a=1\r\nX-E:\r\nSet-Cookie: b=2\r\nX-O: \xff,,\"\r\nContent-Length: 0\r\nServer: me\r\nDate: yesterday\r\n\r\n",
			"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nDate: yesterday\r\nServer: me\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-E: \r\nX-O: \xff,,\"\r\n\r\n", ""},
		{"hop-by-hop", "GET", "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\nx",
			"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", "x"},
		{"gzip is not touched", "GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n" + zipped, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n", zipped},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"},
		{"chunked and empty", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"},
		{"until the end", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n"},
		{"HEAD with a length", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234567\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234567\r\n\r\n", ""},
		{"HEAD without", "HEAD", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", ""},
		{"204", "DELETE", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", ""},
		{"304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 99\r\nContent-Type: a/b\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nContent-Type: a/b\r\nEtag: \"x\"\r\n\r\n", ""},
		{"304 without", "GET", "HTTP/1.1 304 Not Modified\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n\r\n", ""},
		{"trailers, announced or not", "GET", "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nX-Sum: head\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nX-Sum: head\r\n\r\n", "1\r\nx\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n"},
		{"redirects are the client's", "POST", "HTTP/1.1 302 Found\r\nLocation: /a%2Fb\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /a%2Fb\r\n\r\n", ""},
		{"a status of one's own", "GET", "HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 599 x\r\nContent-Length: 0\r\n\r\n", ""},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok204, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ""},
	} {
		answer.set(tt.answer)
		c := dial(t, s)
		head, body := c.ask(tt.method + " /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
		if sortedHead(head) != sortedHead(tt.head) || body != tt.body {
			t.Errorf("%s: got\n%q %q\nwant\n%q %q", tt.name, sortedHead(head), body, sortedHead(tt.head), tt.body)
		}
		if strings.Contains(tt.answer, " 103 ") {
			if head, _ = c.answer(false); head != ok204 {
				t.Errorf("behind the hints: %q", head)
			}
		}
		answer.set(ok204)
		if head, _ := c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"); head != ok204 {
			t.Errorf("%s: the connection's next answer: %q", tt.name, head)
		}
	}
}

func TestProxyKeepsTheNamesOfAnswers(t *testing.T) {
	n, _ := answering(t, func(string, string) string {
		return "HTTP/1.1 200 OK\r\nETag: x\r\ncontent-type: a/b\r\nx-lower: 1\r\nContent-Length: 1\r\n\r\nx"
	})
	head, _ := dial(t, proxying(t, n, nil)).ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
	for _, line := range []string{"\r\nETag: x\r\n", "\r\ncontent-type: a/b\r\n", "\r\nx-lower: 1\r\n"} {
		if strings.Count(strings.ToLower(head), strings.ToLower(line)) != 1 || !strings.Contains(head, line) {
			t.Errorf("%q is not once in %q", line, head)
		}
	}
}

func TestProxyHTTP10(t *testing.T) {
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
	var cut atomic.Bool
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for head := readHead(br); head != ""; head = readHead(br) {
			if strings.Contains(head, "Upgrade") {
				fmt.Fprint(conn, "HTTP/1.1 500 Asked To Upgrade\r\nContent-Length: 0\r\n\r\n")
				continue
			}
			fmt.Fprint(conn, "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"+chunked)
			if cut.Load() {
				return
			}
			fmt.Fprint(conn, "0\r\n\r\n")
		}
	})
	s := proxying(t, n, nil)
	c := dial(t, s)
	c.send("GET /foo/ HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	if all, err := c.rest(); err != nil || all != "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc" {
		t.Errorf("got %q, %v", all, err)
	}
	cut.Store(true)
	c = dial(t, s)
	c.send("GET /foo/ HTTP/1.0\r\n\r\n")
	if all, err := c.rest(); err == nil {
		t.Errorf("half an answer passed for a whole one: %q", all)
	}
}

func TestProxyClosesWhenAsked(t *testing.T) {
	n, _ := answering(t, func(string, string) string { return ok204 })
	c := dial(t, proxying(t, n, nil))
	c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if all, err := c.rest(); err != nil || all != "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" {
		t.Errorf("got %q, %v", all, err)
	}
	if _, made := n.connections(); made != 1 {
		t.Errorf("%d connections", made)
	}
}

func TestMicroHandlerChoosesTheWay(t *testing.T) {
	n, seen := answering(t, func(string, string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" })
	for _, handler := range []string{"rpc", "proxy"} {
		s := run(t, func(c *Config) { c.Handler = handler })
		s.registerRaw("foo", "n", n)
		s.expect(200, "x", "GET", "/foo/%2F?", "", "", "Micro-Handler", "proxy")
		if got := <-seen; !strings.HasPrefix(got, "GET /foo/%2F? HTTP/1.1\r\n") {
			t.Errorf("with --handler=%s: %q", handler, got)
		}
		s.register("go.micro.srv.bar", "n", node(t, "n"), "")
		s.expect(200, `{"node":"n","method":"Say.Hi","got":{}}`, "POST", "/bar/say/hi", "application/json", "{}", "Micro-Handler", "rpc")
	}
}

func TestProxyContinueEndToEnd(t *testing.T) {
	got := make(chan string, 1)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		if strings.Contains(head, "/no") {
			fmt.Fprint(conn, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
			_, _ = io.Copy(io.Discard, br)
			return
		}
		if br.Buffered() > 0 {
			t.Error("the body did not wait")
		}
		fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
		got <- readBody(head, br)
		fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	s := proxying(t, n, nil)
	c := dial(t, s)
	c.send("POST /foo/ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	first, _ := c.answer(false)
	second, _ := c.answer(false)
	if want := "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"; first+second != want && second+first != want {
		t.Errorf("got %q %q", first, second)
	}
	c.send("hello")
	if head, _ := c.answer(false); head != ok204 || <-got != "hello" {
		t.Errorf("got %q", head)
	}
	c = dial(t, s)
	head, body := c.ask("POST /foo/no HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 417 ") {
		t.Errorf("a refused expectation: %q %q", head, body)
	}
}
