package server

import (
	"bufio"
	"context"
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

	"github.com/micro/sidecar/internal/httpmsg"
)

// What is cut off at the end does not pass for a whole answer over HTTP/1.0
// either, where the connection's end is the answer's.
func TestCutAnswersBreak(t *testing.T) {
	for _, way := range []string{"", "http://h"} { // the second is net/http's
		begun := make(chan bool)
		s := start(t, routes{serve: func(ctx context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
			_ = w.Head(200, nil, -1)
			_, _ = w.Write([]byte("abc"))
			_ = w.Flush()
			close(begun)
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // it takes a moment to notice
			return httpmsg.ErrAborted
		}})
		conn := s.dial(t)
		fmt.Fprintf(conn, "GET %s/ HTTP/1.0\r\n\r\n", way)
		<-begun
		br := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = s.Drain(ctx)
		if err := s.Finish(ctx); err == nil {
			t.Error("nothing was cut off")
		}
		if rest, err := io.ReadAll(br); err == nil {
			t.Errorf("target %q: %q passed for the rest of the answer", way+"/", rest)
		}
	}
}

// Requests that follow before the answer are kept, whoever happened to read
// their first byte, also those for the other way in.
func TestPipelinedRequests(t *testing.T) {
	s := start(t, routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "own %s;", b)
		}},
		serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			if strings.HasPrefix(r.Target, "/slow") {
				time.Sleep(2 * watchAfter)
			}
			text := fmt.Sprintf("%s %s;", r.Target, b)
			_ = w.Head(200, nil, int64(len(text)))
			_, err = w.Write([]byte(text))
			return err
		},
	})
	conn := s.dial(t)
	pieces := []string{
		"GET /slow1 HTTP/1.1\r\nHost: h\r\n\r\n", // alone: the watch gets the next one's first byte
		"POST /slow2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcG",
		"ET /slow3 HTTP/1.1\r\nHost: h\r\n\r\nPOST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nP",
		"OST /own HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbod",
		"yGET /own HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
	}
	go func() {
		for _, piece := range pieces {
			_, _ = io.WriteString(conn, piece)
			time.Sleep(watchAfter * 3 / 2)
		}
	}()
	br := bufio.NewReader(conn)
	var got strings.Builder
	for range 7 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("after %q: %v", got.String(), err)
		}
		if _, err := io.Copy(&got, resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	if want := "/slow1 ;/slow2 abc;/slow3 ;/a x;own body;own ;/b ;"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}

// What a client sends before the switch is the tunnel's, also when the watch
// for its going away has read some of it, and no deadline is left behind.
func TestTunnelGetsWhatTheWatchRead(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		time.Sleep(2 * watchAfter)
		conn, err := w.Upgrade(httpmsg.Header{{Name: "Upgrade", Value: "echo"}})
		if err != nil {
			return err
		}
		_, err = io.Copy(conn, struct{ io.Reader }{conn})
		return err
	}})
	conn := s.dial(t)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	time.Sleep(watchAfter * 3 / 2)
	fmt.Fprint(conn, "early")
	time.Sleep(watchAfter * 2)
	fmt.Fprint(conn, " late")
	want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n\r\nearly late"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
}

// A client that goes away ends its request.
func TestClientThatGoesAway(t *testing.T) {
	ended := make(chan error, 1)
	s := start(t, routes{serve: func(ctx context.Context, _ *httpmsg.Request, _ httpmsg.ResponseWriter) error {
		select {
		case <-ctx.Done():
			ended <- nil
		case <-time.After(30 * time.Second):
			ended <- fmt.Errorf("nobody noticed")
		}
		return httpmsg.ErrAborted
	}})
	conn := s.dial(t)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A small body that nobody wanted is read, so that the connection can be kept,
// and one that stops coming holds the answer up for a moment only.
func TestUnwantedBodies(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		time.Sleep(watchAfter)
		return w.Head(404, nil, 0)
	}})
	got, err := s.talk(t, "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if err != nil || strings.Count(got, "HTTP/1.1 404 ") != 2 {
		t.Errorf("got %q, %v", got, err)
	}
	begun := time.Now()
	got, err = s.talk(t, "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab")
	if err != nil || got != "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" || time.Since(begun) > 8*time.Second {
		t.Errorf("got %q, %v after %v", got, err, time.Since(begun))
	}
}

// The watch begins to read while the answer's head is written over a body that
// nobody wanted: under the race detector, either may be first.
func TestTheWatchBeginsWhileABodyIsSwallowed(t *testing.T) {
	for range 20 {
		client, conn := net.Pipe()
		c := newFastConn(&fast{base: t.Context()}, conn, false)
		c.head.Length = 3
		body := &fastBody{c: c}
		body.b.Reset(c.in, c.head.Length)
		c.gone.since, c.gone.body = time.Now().Add(-watchAfter), body
		var looking sync.WaitGroup
		looking.Go(func() {
			for !body.ended.Load() {
				runtime.Gosched()
			}
			c.gone.look()
		})
		looking.Go(func() { fmt.Fprint(client, "abc") })
		if !body.complete() {
			t.Error("the body was not read")
		}
		looking.Wait()
		c.gone.end()
		if c.ctx.Err() != nil {
			t.Error("the client passes for gone")
		}
		c.cancel()
		client.Close()
		conn.Close()
	}
}

// Half a head is no request: it does not hold up the end.
func TestHalfAHeadDoesNotDelayTheEnd(t *testing.T) {
	first := make(chan bool)
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		close(first)
		return w.Head(204, nil, 0)
	}})
	conn := s.dial(t)
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HT")
	<-first
	if head, err := bufio.NewReader(conn).ReadString('\n'); err != nil || head != "HTTP/1.1 204 No Content\r\n" {
		t.Fatalf("got %q, %v", head, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Finish(ctx); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// readDeadline is a connection that remembers its deadline for reading.
type readDeadline struct {
	net.Conn
	at atomic.Pointer[time.Time]
}

func (c *readDeadline) SetReadDeadline(at time.Time) error {
	c.at.Store(&at)
	return c.Conn.SetReadDeadline(at)
}

// A connection is not kept without end because its last request had a body that
// nobody wanted.
func TestIdleConnectionsEndAfterUnwantedBodies(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		return w.Head(204, nil, 0)
	}})
	client, server := net.Pipe()
	defer client.Close()
	conn := &readDeadline{Conn: server}
	s.fast.serve(conn, true)
	in := bufio.NewReader(client)
	for range 2 {
		fmt.Fprint(client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 204 || resp.Close {
			t.Fatal(resp, err)
		}
	}
	for end := time.Now().Add(30 * time.Second); conn.at.Load().IsZero(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the idle connection has no deadline")
		}
	}
}
