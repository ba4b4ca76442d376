package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestProxyEventsArriveBeforeTheNext(t *testing.T) {
	next := make(chan string)
	defer close(next)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		for text := range next {
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	})
	for name, head := range map[string]string{
		"chunked":       "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
		"with a length": "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
	} {
		s := proxying(t, n, nil)
		c := dial(t, s)
		c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
		next <- head // the head by itself, for a client that waits for it
		if got := readHead(c.br); got != head {
			t.Errorf("%s: head %q", name, got)
		}
		for _, piece := range []string{"ab", "cd", "ef"} {
			if name == "chunked" {
				piece = "2\r\n" + piece + "\r\n"
			}
			next <- piece
			buf := make([]byte, len(piece))
			if _, err := io.ReadFull(c.br, buf); err != nil || string(buf) != piece {
				t.Fatalf("%s: got %q, %v", name, buf, err)
			}
		}
		c.conn.Close() // the node's connection goes with it
		eventually(t, "the node's connection is closed", func() bool {
			select {
			case next <- "0":
			default:
			}
			live, _ := n.connections()
			return live == 0
		})
	}
}

func TestProxyUploadsStreamWhileTheAnswerIsAwaited(t *testing.T) {
	got := make(chan string)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		for range 2 {
			if field(head, "Transfer-Encoding") != "" {
				_, _ = br.ReadString('\n')
			}
			buf := make([]byte, 5)
			_, _ = io.ReadFull(br, buf)
			if field(head, "Transfer-Encoding") != "" {
				_, _ = br.ReadString('\n')
			}
			got <- string(buf)
		}
		fmt.Fprint(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	// A slow upload is no slow node.
	s := proxying(t, n, func(c *Config) { c.RequestTimeout = time.Second })
	for _, pieces := range [][3]string{
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello", "world", ""},
		{"POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "5\r\nworld\r\n", "0\r\n\r\n"},
	} {
		c := dial(t, s)
		c.send(pieces[0])
		if first := <-got; first != "hello" {
			t.Errorf("the first piece arrived as %q", first)
		}
		time.Sleep(1500 * time.Millisecond) // longer than the timeout: there is nothing to wait for
		c.send(pieces[1])
		if second := <-got; second != "world" {
			t.Errorf("the second piece arrived as %q", second)
		}
		c.send(pieces[2])
		if head, _ := c.answer(false); !strings.HasPrefix(head, "HTTP/1.1 204 ") {
			t.Errorf("got %q", head)
		}
	}
}

func TestProxyBothWaysAtOnce(t *testing.T) {
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		_, _ = io.Copy(conn, br) // chunks come back as they came
	})
	c := dial(t, proxying(t, n, nil))
	c.send("POST /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
	if head := readHead(c.br); !strings.HasPrefix(head, "HTTP/1.1 200 OK\r\n") {
		t.Fatalf("got %q", head)
	}
	for range 3 {
		c.send("5\r\nhello\r\n")
		buf := make([]byte, 10)
		if _, err := io.ReadFull(c.br, buf); err != nil || string(buf) != "5\r\nhello\r\n" {
			t.Fatalf("got %q, %v", buf, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := c.rest(); err != nil || rest != "0\r\n\r\n" {
		t.Errorf("the end came as %q, %v", rest, err)
	}
}

func TestProxyEarlyAnswerReachesAClientThatGoesOnSending(t *testing.T) {
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		fmt.Fprint(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
		_ = conn.CloseWrite() // the rest is not wanted
		_, _ = io.Copy(io.Discard, br)
	})
	s := proxying(t, n, nil)
	for _, framing := range []string{"Content-Length: 50000000", "Transfer-Encoding: chunked"} {
		c := dial(t, s)
		head, body := c.ask("POST /foo/ HTTP/1.1\r\nHost: h\r\n" + framing + "\r\n\r\n5\r\nhello\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 413 ") || body != "no" || field(head, "Connection") != "close" {
			t.Errorf("%s: got %q %q", framing, head, body)
		}
		if rest, err := c.rest(); rest != "" || err != nil {
			t.Errorf("%s: then %q, %v", framing, rest, err)
		}
	}
}

// zeros is a body of n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestProxyLargeBodiesDoNotGrowMemory(t *testing.T) {
	const size = 64 << 20
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		if strings.HasPrefix(head, "POST") {
			got, _ := io.Copy(io.Discard, io.LimitReader(br, size))
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nX-Got: %d\r\nContent-Length: 0\r\n\r\n", got)
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		_, _ = io.Copy(conn, zeros(size))
	})
	s := proxying(t, n, nil)
	before := heap()
	peak := before
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				peak = max(peak, heap())
			}
		}
	}()
	resp, err := http.Get(s.url + "/foo/")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.Copy(io.Discard, resp.Body)
	if err != nil || got != size {
		t.Errorf("down: %d bytes, %v", got, err)
	}
	resp.Body.Close()
	req, _ := http.NewRequest("POST", s.url+"/foo/", zeros(size))
	req.ContentLength = size
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("X-Got"); got != fmt.Sprint(size) {
		t.Errorf("up: %s bytes", got)
	}
	close(stop)
	<-stopped
	http.DefaultClient.CloseIdleConnections()
	if peak-before > 16<<20 {
		t.Errorf("the heap grew by %d MiB", (peak-before)>>20)
	}
	t.Logf("the heap grew by %d KiB at most", (peak-before)>>10)
}

func TestProxySlowReaderHoldsTheNodeBack(t *testing.T) {
	const size = 256 << 20
	var written atomic.Int64
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		buf := make([]byte, 64<<10)
		for written.Load() < size {
			n, err := conn.Write(buf)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	})
	c := dial(t, proxying(t, n, nil))
	c.send("GET /foo/ HTTP/1.1\r\nHost: h\r\n\r\n")
	readHead(c.br)
	last := int64(-1)
	eventually(t, "the node stands still", func() bool {
		now := written.Load()
		still := now == last
		last = now
		time.Sleep(50 * time.Millisecond)
		return still && now > 0
	})
	if last > size/2 {
		t.Errorf("%d MiB were taken from the node for a client that does not read", last>>20)
	}
}

func TestProxyWebSocket(t *testing.T) {
	ended := make(chan error, 1)
	n := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"chat"}, OriginPatterns: []string{"*"}})
		if err != nil {
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(2 << 20)
		for {
			kind, b, err := conn.Read(r.Context())
			if err != nil {
				ended <- err
				return
			}
			if conn.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	s.register("go.micro.srv.foo", "n", n, "")
	for _, abrupt := range []bool{false, true} {
		conn, resp, err := websocket.Dial(t.Context(), s.url+"/foo/ws?x", &websocket.DialOptions{Subprotocols: []string{"chat"}})
		if err != nil || resp.Header.Get("Sec-WebSocket-Protocol") != "chat" {
			t.Fatal(resp, err)
		}
		conn.SetReadLimit(2 << 20)
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
			text := strings.Repeat("x", size)
			if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
			if _, b, err := conn.Read(t.Context()); err != nil || string(b) != text {
				t.Fatalf("%d bytes came back as %d, %v", size, len(b), err)
			}
		}
		want := websocket.StatusCode(4001)
		if abrupt {
			conn.CloseNow()
			want = -1
		} else if err := conn.Close(4001, "bye"); err != nil {
			t.Error(err)
		}
		if err := <-ended; websocket.CloseStatus(err) != want {
			t.Errorf("the node's connection ended with %v", err)
		}
	}
}

const upgrade = "GET /foo/ HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo/1\r\n\r\n"
const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\nX-A: b\r\n\r\n"

// echoing is a node that switches to a protocol that says "hi", echoes, and
// says "bye" when the client has ended.
func echoing(t *testing.T) *rawNode {
	return startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		head := readHead(br)
		if field(head, "Upgrade") != "echo/1" || field(head, "Connection") != "Upgrade" {
			fmt.Fprint(conn, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
			return
		}
		fmt.Fprint(conn, switched+"hi ")
		if _, err := io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{br}); err != nil {
			return
		}
		fmt.Fprint(conn, " bye")
	})
}

func TestProxyUpgradesRaw(t *testing.T) {
	n := echoing(t)
	s := proxying(t, n, nil)
	c := dial(t, s)
	c.send(upgrade + "early") // right behind, not waiting for the 101
	if head := readHead(c.br); sortedHead(head) != sortedHead(switched) {
		t.Errorf("got %q", head)
	}
	c.send(" late")
	if err := c.conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := c.rest(); err != nil || rest != "hi early late bye" {
		t.Errorf("got %q, %v", rest, err)
	}

	c = dial(t, s)
	c.send(upgrade)
	readHead(c.br)
	if err := c.conn.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.conn.Close()
	eventually(t, "an abrupt close reaches the node", func() bool { live, _ := n.connections(); return live == 0 })

	c = dial(t, s)
	c.send(upgrade)
	readHead(c.br)
	n.stop()
	if rest, err := c.rest(); err != nil || rest != "hi " {
		t.Errorf("the node's end came as %q, %v", rest, err)
	}
}

func TestStopWaitsForTunnelsUntilTheDeadline(t *testing.T) {
	t.Parallel()
	s := proxying(t, echoing(t), func(c *Config) { c.ShutdownGrace = 3 * time.Second })
	c := dial(t, s)
	c.send(upgrade)
	readHead(c.br)
	begun := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	eventually(t, "no new connections are taken", func() bool { status, _ := s.try("GET", "/livez", "", ""); return status == 0 })
	c.send("still")
	buf := make([]byte, len("hi still"))
	if _, err := io.ReadFull(c.br, buf); err != nil || string(buf) != "hi still" {
		t.Errorf("after the stop began: %q, %v", buf, err)
	}
	if _, err := c.rest(); err != nil {
		t.Logf("cut with %v", err)
	}
	if err := <-ended; err != nil && strings.Contains(err.Error(), "cut off") {
		t.Errorf("a tunnel that was cut is no error: %v", err)
	}
	if took := time.Since(begun); took < 2*time.Second || took > 15*time.Second {
		t.Errorf("it took %v with a grace of 3s", took)
	}
}

func TestStopEndsWithTheLastTunnel(t *testing.T) {
	s := proxying(t, echoing(t), nil)
	c := dial(t, s)
	c.send(upgrade)
	readHead(c.br)
	begun := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	context.AfterFunc(ctx, func() { c.conn.Close() })
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	eventually(t, "no new connections are taken", func() bool { status, _ := s.try("GET", "/livez", "", ""); return status == 0 })
	cancel()
	if err := <-ended; err != nil || time.Since(begun) > 15*time.Second {
		t.Errorf("%v after %v", err, time.Since(begun))
	}
}
