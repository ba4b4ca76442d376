package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// A connection is used again, however long it was quiet, and however long the
// exchange on it took.
func TestConnectionsOutliveTheirDeadlines(t *testing.T) {
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "/slow") {
			time.Sleep(untied * 3 / 2)
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true
	})
	c := newClient(t, Options{})
	for _, target := range []string{"/", "/slow", "/slow", "/", "/"} {
		if res, body := roundTrip(t, c, w.addr, get(target)); res.Status != 200 || body != "ok" {
			t.Errorf("%s: %d %q", target, res.Status, body)
		}
		time.Sleep(untied * 5 / 4) // longer than the deadline for reading that was set
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// The time for the head is no longer the connection's when the node has switched
// protocols, however long it thought about that.
func TestHeadTimeoutIsNotTheTunnels(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	addr := startNode(t, func(_ int, conn net.Conn, br *bufio.Reader) {
		readHead(br)
		time.Sleep(2 * untied)
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, br)
	})
	c := newClient(t, Options{})
	r := get("/")
	r.Header = httpmsg.Header{{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "echo"}}
	begun := time.Now()
	res, err := c.Forward(t.Context(), at(addr), r, &Forwarding{HeadTimeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Conn.Close()
	time.Sleep(limit - time.Since(begun) + untied)
	b := make([]byte, 1)
	if _, err := res.Conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Conn, b); err != nil || b[0] != 'x' {
		t.Errorf("got %q, %v", b, err)
	}
}

// A body that pauses for longer than the head may take is read to its end.
func TestHeadTimeoutIsForTheHead(t *testing.T) {
	end := make(chan bool)
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "/never") {
			<-end
			return "", false
		}
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", true
	})
	c := newClient(t, Options{})
	defer close(end)
	f := &Forwarding{HeadTimeout: time.Second}
	begun := time.Now()
	_, err := c.Forward(t.Context(), at(w.addr), get("/never"), f)
	if node := nodeError(err); !errors.Is(err, context.DeadlineExceeded) || node == nil || !node.Sent || time.Since(begun) < f.HeadTimeout {
		t.Errorf("got %v after %v", err, time.Since(begun))
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := c.Forward(ctx, at(w.addr), get("/"), f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 10)
	if n, err := res.Body.Read(b); string(b[:n]) != "a" || err != nil {
		t.Fatalf("%q, %v", b[:n], err)
	}
	got := make(chan error, 1)
	go func() { _, err := res.Body.Read(b); got <- err }()
	select {
	case err := <-got:
		t.Errorf("the body ended: %v", err)
	case <-time.After(2 * f.HeadTimeout):
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled body: %v", err)
		}
	}
}

// The end of the context ends an exchange in each of its phases.
func TestContextEndsAnExchange(t *testing.T) {
	stop := make(chan bool)
	w := startWire(t, func(head, _ string) (string, bool) {
		switch {
		case strings.Contains(head, "/head"):
			<-stop
			return "", false
		case strings.Contains(head, "/some"):
			return "HTTP/1.1 200 OK\r\nContent-Le", true
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true
	})
	defer close(stop)
	c := newClient(t, Options{})
	for _, target := range []string{"/head", "/some", "/body"} {
		for _, after := range []time.Duration{untied / 4, untied * 2} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			res, err := c.Do(ctx, at(w.addr), get(target))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close() // it was cut
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled after %v: %v", target, after, err)
			}

			ctx, cancel = context.WithTimeout(t.Context(), after)
			begun := time.Now()
			if res, err = c.Do(ctx, at(w.addr), get(target)); err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took < after {
				t.Errorf("%s, deadline after %v: %v after %v", target, after, err, took)
			}
			cancel()
		}
	}
}

// A request is sent although the deadline it began with has passed before.
func TestRequestThatIsHeldUpIsSent(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true })
	c := newClient(t, Options{})
	roundTrip(t, c, w.addr, get("/")) // makes the connection
	kept := idle(c, at(w.addr))[0]
	for range 3 {
		kept.until = time.Now().Add(untied) // what is set is not what is believed to be
		if err := kept.SetReadDeadline(aLongTimeAgo); err != nil {
			t.Fatal(err)
		}
		if res, body := roundTrip(t, c, w.addr, get("/")); res.Status != 200 || body != "ok" {
			t.Errorf("%d %q", res.Status, body)
		}
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// A node that is slow to answer is not sent the request once more because the
// connection had been used before.
func TestSlowRequestIsSentOnce(t *testing.T) {
	var slow atomic.Int32
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "/slow") {
			slow.Add(1)
			return "", true
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true
	})
	c := newClient(t, Options{})
	roundTrip(t, c, w.addr, get("/"))
	_, err := c.Forward(t.Context(), at(w.addr), get("/slow"), &Forwarding{HeadTimeout: 2 * untied})
	if n := slow.Load(); !errors.Is(err, errSlow) || n != 1 {
		t.Errorf("sent %d times: %v", n, err)
	}
}

// A node that does not even take the request is as slow as one that does not
// answer.
func TestHeadTimeoutIsForTheRequestToo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(t, Options{})
	p := c.pool(at(l.Addr().String()))
	raw, err := c.dial(t.Context(), p.peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.(*net.TCPConn).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	p.put(newConn(p, raw))
	r := get("/")
	for range 100 { // more than the socket takes
		r.Header.Add("A", strings.Repeat("a", 10<<10))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = c.Forward(ctx, p.peer, r, &Forwarding{HeadTimeout: 200 * time.Millisecond})
	if !errors.Is(err, errSlow) || ctx.Err() != nil {
		t.Errorf("error %v", err)
	}
}

// A request that was held up is sent even when the socket does not take all of
// it at once.
func TestLargeRequestThatIsHeldUpIsSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	var running sync.WaitGroup
	defer running.Wait()
	defer l.Close()
	running.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			got <- -1
			return
		}
		got <- len(r.Header["A"])
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	c := newClient(t, Options{})
	p := c.pool(at(l.Addr().String()))
	raw, err := c.dial(t.Context(), p.peer)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.(*net.TCPConn).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	conn := newConn(p, raw)
	conn.until = time.Now().Add(untied) // what is set is not what is believed to be
	if err := conn.SetReadDeadline(aLongTimeAgo); err != nil {
		t.Fatal(err)
	}
	p.put(conn)
	r := get("/")
	for range 100 {
		r.Header.Add("A", strings.Repeat("a", 10<<10))
	}
	if res, _ := roundTrip(t, c, p.peer.Addr, r); res.Status != 204 {
		t.Errorf("status %d", res.Status)
	}
	if n := <-got; n != 100 {
		t.Errorf("%d fields came", n)
	}
}
