package transport

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// startNode gives serve each connection, with its number from 1 on.
func startNode(t *testing.T, serve func(number int, conn net.Conn, br *bufio.Reader)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for number := 1; ; number++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			wg.Go(func() {
				defer conn.Close()
				serve(number, conn, bufio.NewReader(conn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// readHead reads a head, "" when there is none.
func readHead(br *bufio.Reader) string {
	var head strings.Builder
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return ""
		}
		if head.WriteString(line); line == "\r\n" {
			return head.String()
		}
	}
}

// oneByOne is a body that comes a byte a read.
type oneByOne struct {
	mu   sync.Mutex
	text string
}

func (b *oneByOne) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if b.text == "" {
		return 0, io.EOF
	}
	n := copy(p[:1], b.text)
	b.text = b.text[n:]
	return n, nil
}

// A body that waited for a "100 Continue" on a kept connection that turned out
// to be dead goes out on the fresh one, and on no other.
func TestBodyThatWaitedGoesOutOnce(t *testing.T) {
	got := make(chan string, 1)
	addr := startNode(t, func(number int, conn net.Conn, br *bufio.Reader) {
		if number == 1 {
			readHead(br)
			_, _ = io.WriteString(conn, empty)
			readHead(br)
			return
		}
		readHead(br)
		var body strings.Builder
		for !strings.HasSuffix(body.String(), "0\r\n\r\n") {
			c, err := br.ReadByte()
			if err != nil {
				break
			}
			body.WriteByte(c)
		}
		got <- body.String()
		_, _ = io.WriteString(conn, empty)
	})
	c := newClient(t, Options{})
	roundTrip(t, c, addr, get("/"))
	r := get("/")
	r.Method, r.Body, r.Length = "PUT", &oneByOne{text: "abc"}, -1
	r.Header = httpmsg.Header{{Name: "Expect", Value: "100-continue"}}
	if res, _ := roundTrip(t, c, addr, r); res.Status != 204 {
		t.Errorf("status %d", res.Status)
	}
	if body, want := <-got, "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"; body != want {
		t.Errorf("the node got %q, want %q", body, want)
	}
}

// toldBody notes how much the first read asked for.
type toldBody struct {
	oneByOne
	once  sync.Once
	first atomic.Int64
}

func (b *toldBody) Read(p []byte) (int, error) {
	b.once.Do(func() { b.first.Store(int64(len(p))) })
	return b.oneByOne.Read(p)
}

// Whoever owns a body is told that it is being read, with a read of nothing,
// before the answer can be there: what nobody reads may be thrown away with it.
func TestBodyIsBegunBeforeTheAnswer(t *testing.T) {
	addr := startNode(t, func(_ int, conn net.Conn, br *bufio.Reader) {
		readHead(br)
		_, _ = io.WriteString(conn, empty)
		_, _ = io.Copy(io.Discard, br)
	})
	body := &toldBody{oneByOne: oneByOne{text: "abc"}}
	body.first.Store(-1)
	r := get("/")
	r.Method, r.Body, r.Length = "POST", body, 3
	c := newClient(t, Options{})
	roundTrip(t, c, addr, r)
	if first := body.first.Load(); first != 0 {
		t.Errorf("the first read was of %d bytes", first)
	}
	c.Close()
}

// hereBody is all there, but cannot be read twice.
type hereBody struct{ toldBody }

func (b *hereBody) Here() int { return len(b.text) }

// A body that was used up is nothing another node could be sent.
func TestUsedBodyCountsAsSent(t *testing.T) {
	c := newClient(t, Options{})
	p := c.pool(at("127.0.0.1:1"))
	ours, theirs := net.Pipe()
	ours.Close()
	theirs.Close()
	p.put(newConn(p, ours))
	body := &hereBody{}
	body.text = "abc"
	r := get("/")
	r.Method, r.Body, r.Length = "POST", body, 3
	_, err := c.Do(t.Context(), at("127.0.0.1:1"), r)
	if e := nodeError(err); e == nil || !e.Sent || body.text != "" {
		t.Errorf("got %v with %q left of the body", err, body.text)
	}
}

// Connections that are in use while idle ones are looked through are kept
// afterwards; those that come back to a closed client are not.
func TestBusyConnectionsAreKept(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", true })
	c := newClient(t, Options{})
	open := func() *httpmsg.Response {
		res, err := c.Do(t.Context(), at(w.addr), get("/"))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	end := func(res *httpmsg.Response) {
		_, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			t.Error(err)
		}
	}
	res := open()
	c.sweepNow()
	end(res)
	end(open())
	if w.mu.Lock(); w.conns != 1 {
		t.Errorf("%d connections were made", w.conns)
	}
	w.mu.Unlock()
	res = open()
	c.Close()
	end(res)
	if p := c.pool(at(w.addr)); len(p.idle) > 0 {
		t.Error("a closed client keeps a connection")
	}
}

// A connection is kept after a body that was streamed: its end counts as sent
// when the node has answered it.
func TestConnectionIsKeptAfterAStreamedBody(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return empty, true })
	c := newClient(t, Options{})
	for i := range 200 {
		r := get("/")
		r.Method, r.Body, r.Length = "POST", &oneByOne{text: "abc"}, int64(3-4*(i%2))
		roundTrip(t, c, w.addr, r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns > 1 {
		t.Errorf("%d connections were made", w.conns)
	}
}
