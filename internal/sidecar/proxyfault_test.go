package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	s.refused(404, "go.micro.srv.nosuch not found", "GET", "/nosuch/x", "", "")
	s.refused(404, "names no service", "GET", "/", "", "")
	s.refused(404, "names no service", "GET", "//", "", "")
	s.refused(404, "names no service", "GET", "/../x", "", "")
	var answer script
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		readBody(head, br)
		if _, err := io.WriteString(conn, answer.get()); err == nil && answer.get() == "" {
			_, _ = io.Copy(io.Discard, br) // and not a word
		}
	})
	s.registerRaw("foo", "n", n)
	for _, nonsense := range []string{
		"HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\n", "H", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 042 OK\r\n\r\n", "HTTP/9.9 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "HTTP/1.1 200 OK\r\nTransfer-Encoding: zip\r\n\r\n",
		"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", "\x00\x01\x02\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
	} {
		answer.set(nonsense)
		s.refused(502, "node 127.0.0.1:", "GET", "/foo/", "", "")
		s.refused(502, "node 127.0.0.1:", "POST", "/foo/", "", "body")
	}
	answer.set("")
	short := proxying(t, n, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	short.refused(504, "time", "GET", "/foo/", "", "")
	short.refused(504, "time", "POST", "/foo/", "", "body")
	n.stop()
	s.refused(502, "refused", "GET", "/foo/", "", "")
}

func TestProxyDeadNodeIsPassedOver(t *testing.T) {
	n, seen := answering(t, func(string, string) string { return ok204 })
	s := proxying(t, n, nil)
	dead := startNode(t, func(*net.TCPConn, *bufio.Reader) {})
	s.registerRaw("foo", "dead", dead)
	dead.stop()
	for range 20 {
		s.expect(204, "", "POST", "/foo/", "", "body")
		if got := <-seen; !strings.HasSuffix(got, "\r\n\r\nbody") {
			t.Errorf("the node got %q", got)
		}
	}
}

func TestProxyNeverPassesHalfAnAnswerForAWhole(t *testing.T) {
	var answer script
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(conn, answer.get())
	})
	s := proxying(t, n, nil)
	for _, half := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
	} {
		answer.set(half)
		resp, err := http.Get(s.url + "/foo/")
		if err != nil {
			continue // broken from the start is fine
		}
		b, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err == nil {
			t.Errorf("%q became %d %q", half, resp.StatusCode, b)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestProxyHalfARequestIsNotPassedForAWhole(t *testing.T) {
	bodies := make(chan string, 10)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		bodies <- readBody(head, br)
	})
	s := proxying(t, n, nil)
	c := dial(t, s)
	head, _ := c.ask("POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 400 ") {
		t.Errorf("a broken chunk: %q", head)
	}
	if got := <-bodies; strings.Contains(got, "0\r\n\r\n") {
		t.Errorf("the node got a whole body: %q", got)
	}
	c = dial(t, s)
	c.send("POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	c.conn.Close()
	if got := <-bodies; strings.Contains(got, "0\r\n\r\n") {
		t.Errorf("the node got a whole body: %q", got)
	}
}

func TestProxyClientGoneCancelsTheNode(t *testing.T) {
	begun, gone := make(chan bool), make(chan error)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		readBody(head, br)
		begun <- true
		if strings.HasPrefix(head, "PUT") {
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		}
		_, err := br.ReadByte()
		gone <- err
	})
	s := proxying(t, n, nil)
	for _, request := range []string{"GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n", "POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", "PUT /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"} {
		c := dial(t, s)
		c.send(request)
		<-begun
		c.conn.Close()
		if err := <-gone; err == nil {
			t.Error("the node got another request")
		}
	}
}

func TestProxyNodeThatDiesWhileTheClientWaits(t *testing.T) {
	n := startNode(t, func(_ *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		_, _ = io.ReadFull(br, make([]byte, 5))
		_ = head
	})
	c := dial(t, proxying(t, n, nil))
	// It has five bytes to send yet, and waits for a word.
	head, _ := c.ask("POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello")
	if !strings.HasPrefix(head, "HTTP/1.1 502 ") {
		t.Errorf("got %q", head)
	}
}

func TestProxyNodeThatTakesNothing(t *testing.T) {
	release := make(chan bool)
	n := startNode(t, func(_ *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		<-release
	})
	defer close(release)
	s := proxying(t, n, func(c *Config) { c.RequestTimeout = 200 * time.Millisecond })
	resp, err := http.Post(s.url+"/foo/", "", zeros(64<<20))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 504 {
		t.Errorf("got %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

// A server that closes idle connections just when they are used again is no
// reason for a GET to fail.
func TestProxyStaleConnections(t *testing.T) {
	var answers atomic.Int64
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for {
			if readHead(br) == "" {
				return
			}
			if _, err := io.WriteString(conn, ok204); err != nil {
				return
			}
			if answers.Add(1)%3 == 0 { // it announced nothing, and the next request runs into it
				_, _ = br.ReadByte()
				return
			}
		}
	})
	s := proxying(t, n, nil)
	var all sync.WaitGroup
	for range 4 {
		c := dial(t, s)
		all.Go(func() {
			for range 100 {
				if head, _ := c.ask("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"); head != ok204 {
					t.Errorf("got %q", head)
				}
			}
		})
	}
	all.Wait()
	if _, made := n.connections(); made < 50 {
		t.Errorf("%d connections: nothing was proved", made)
	}
}

func TestProxyLeaksNothing(t *testing.T) {
	n := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "hello")
	})
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	s.register("go.micro.srv.foo", "n", n, "")
	work := func(each int) {
		var all sync.WaitGroup
		for range 8 {
			c := dial(t, s)
			all.Go(func() {
				for i := range each {
					request := "GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n"
					if i%2 == 0 {
						request = "POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
					}
					if head, body := c.ask(request); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "hello" {
						t.Errorf("got %q %q", head, body)
					}
				}
				c.conn.Close()
			})
		}
		all.Wait()
	}
	work(5)
	eventually(t, "the clients' goroutines are gone", settled())
	before := runtime.NumGoroutine()
	work(150)
	// The pool may hold more of the node's connections than after the first
	// round, up to one a client, with two goroutines each.
	eventually(t, fmt.Sprintf("there are some %d goroutines again", before), func() bool { return runtime.NumGoroutine() <= before+16 })
}

// settled reports, when asked again and again, that the number of goroutines
// stands still.
func settled() func() bool {
	last, times := 0, 0
	return func() bool {
		now := runtime.NumGoroutine()
		if now != last {
			last, times = now, 0
		}
		times++
		return times > 20
	}
}
