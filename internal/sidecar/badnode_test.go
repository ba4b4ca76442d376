package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A node that refuses an upload and closes at once, with what it has not read
// still coming, resets the connection: its answer must not be lost with it.
func TestEarlyRefusalsReachTheClient(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		if strings.Contains(head, "/some") {
			_, _ = io.CopyN(io.Discard, br, 100_000)
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	})
	s := proxying(t, n, nil)
	const size = 2 << 20
	for i := range 16 {
		way := bothWays[i%2]
		target := []string{"/foo/", "/foo/some"}[i/2%2]
		c := dialBy(t, s, way)
		upload := "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat("x", 1<<16)+"\r\n", size>>16) + "0\r\n\r\n"
		if i/4%2 == 0 {
			upload = fmt.Sprintf("Content-Length: %d\r\n\r\n", size) + strings.Repeat("x", size)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			_, _ = io.WriteString(c.conn, "POST "+target+" HTTP/1.1\r\nHost: h\r\n"+upload) // it is cut off, as a rule
		})
		m, err := readMessage(c.br, "POST")
		c.conn.Close()
		sending.Wait()
		if err != nil || m.status() != 413 || m.body != "no" {
			t.Fatalf("try %d, %s, %s: got %+v, %v", i, way, target, m, err)
		}
	}
}

// A node that closes idle connections, without a word and just when they may be
// used again, costs no request that must not be repeated: a POST is carried out
// once when it is answered, and at most once when it is refused.
func TestPostsAreCarriedOutOnce(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	done := map[string]int{}
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for i := 0; ; i++ {
			m, err := readMessage(br, "")
			if m == nil || err != nil {
				return
			}
			mu.Lock()
			done[m.body]++
			mu.Unlock()
			if _, err := io.WriteString(conn, ok204); err != nil {
				return
			}
			if rand.N(3) == 0 {
				time.Sleep(rand.N(300 * time.Microsecond))
				return
			}
		}
	})
	s := proxying(t, n, nil)
	const clients, each = 4, 250
	var refused sync.Map
	var all sync.WaitGroup
	for k := range clients {
		c := dialBy(t, s, bothWays[k%2])
		all.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", k, i)
				c.send(fmt.Sprintf("POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(id), id))
				m, err := readMessage(c.br, "POST")
				if err != nil || m.status() != 204 && m.status() != 502 {
					t.Errorf("%s: got %+v, %v", id, m, err)
					return
				}
				if m.status() == 502 {
					refused.Store(id, true)
				}
				if m.value("Connection") == "close" {
					c.conn.Close()
					c = dialBy(t, s, bothWays[k%2])
				}
				time.Sleep(rand.N(300 * time.Microsecond))
			}
		})
	}
	all.Wait()
	n.stop()
	lost := 0
	for k := range clients {
		for i := range each {
			id := fmt.Sprintf("%d-%d", k, i)
			_, no := refused.Load(id)
			if no {
				lost++
			}
			if times := done[id]; times > 1 || times == 0 && !no {
				t.Errorf("%s was carried out %d times, refused: %v", id, times, no)
			}
		}
	}
	_, made := n.connections()
	t.Logf("of %d requests over %d connections %d were refused", clients*each, made, lost)
	if made < clients*each/10 {
		t.Errorf("%d connections: nothing was proved", made)
	}
}

// Connections that are closed for one direction: what ends early is no answer
// and no request, what is whole counts.
func TestHalfClosedConnections(t *testing.T) {
	t.Parallel()
	arrived, got := make(chan bool, 1), make(chan string, 1)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		switch {
		case strings.Contains(head, "/answer"): // done with sending, not with reading
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, br)
		case strings.Contains(head, "/half"):
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, br)
		case strings.Contains(head, "/nothing"):
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, br)
		default:
			_, _ = br.Peek(len("hi"))
			arrived <- true
			all, _ := io.ReadAll(br)
			got <- string(all)
			_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		}
	})
	s := proxying(t, n, nil)
	for _, way := range bothWays {
		c := dialBy(t, s, way)
		for range 2 {
			if head, body := c.ask("GET /foo/answer HTTP/1.1\r\nHost: h\r\n\r\n"); body != "ok" {
				t.Errorf("%s: got %q %q", way, head, body)
			}
		}
		if head, _ := c.ask("GET /foo/nothing HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.HasPrefix(head, "HTTP/1.1 502 ") {
			t.Errorf("%s: a node without a word: %q", way, head)
		}
		c.send("GET /foo/half HTTP/1.1\r\nHost: h\r\n\r\n")
		if m, err := readMessage(c.br, "GET"); err == nil {
			t.Errorf("%s: half an answer passed for %+v", way, m)
		}

		// A client that stops in the middle of a request has made none.
		c = dialBy(t, s, way)
		c.send("POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nhi")
		<-arrived // net/http takes a client that closes its half for gone
		_ = c.conn.CloseWrite()
		if m, err := readMessage(c.br, "POST"); err == nil && m.status() < 400 || <-got != "hi" {
			t.Errorf("%s: half a request got %+v, %v", way, m, err)
		}
	}
}

// An answer that comes while its request is still being sent is passed on at
// once, and what follows on either side's connection is not mixed up.
func TestAnswersBeforeTheRequestHasEnded(t *testing.T) {
	t.Parallel()
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		for {
			head := readHead(br)
			if head == "" {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Path: "+strings.Fields(head)[1]+"\r\nContent-Length: 2\r\n\r\nok")
			readBody(head, br)
		}
	})
	s := proxying(t, n, nil)
	const size = 1 << 20
	for i := range 20 {
		way := bothWays[i%2]
		c := dialBy(t, s, way)
		path := "/foo/" + strconv.Itoa(i)
		c.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\nbegin", path, size))
		m, err := readMessage(c.br, "POST")
		if err != nil || m.value("X-Path") != path || m.body != "ok" {
			t.Fatalf("%s: got %+v, %v", way, m, err)
		}
		// The rest is a request in another's eyes, and is not to become one.
		_, _ = io.WriteString(c.conn, strings.Repeat(smuggled, 10))
		_ = c.conn.CloseWrite()
		if m.value("Connection") != "close" {
			t.Errorf("%s: the answer does not say that it is the connection's last", way)
		}
		if rest, _ := c.rest(); rest != "" {
			t.Errorf("%s: then came %q", way, rest)
		}
		c.conn.Close()
		if m := askFresh(t, s, path+"/next"); m.value("X-Path") != path+"/next" {
			t.Fatalf("the next client got another's answer: %+v", m)
		}
	}
}

// askFresh sends a GET on a connection of its own.
func askFresh(t *testing.T, s *running, path string) *message {
	t.Helper()
	c := dial(t, s)
	defer c.conn.Close()
	c.send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
	m, err := readMessage(c.br, "GET")
	if err != nil {
		t.Fatal(err)
	}
	return m
}
