package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// notebook remembers the whole requests of one connection.
type notebook struct {
	mu       sync.Mutex
	requests []string
}

func (n *notebook) serve(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return w.Head(http.StatusBadRequest, nil, 0)
	}
	n.mu.Lock()
	n.requests = append(n.requests, fmt.Sprintf("%s %s %q", r.Method, r.Target, body))
	n.mu.Unlock()
	if err := w.Head(http.StatusOK, httpmsg.Header{{Name: "X-Method", Value: r.Method}, {Name: "X-Handler", Value: "yes"}}, -1); err != nil {
		return httpmsg.ErrAborted
	}
	_, err = w.Write([]byte("ok"))
	return err
}

func (n *notebook) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.requests
	n.requests = nil
	return out
}

// FuzzConnection sends what it likes to the server, as one connection: the
// requests that come to the handler are those that net/http reads in the same
// bytes, none more and none other, and each is answered whole.
func FuzzConnection(f *testing.F) {
	const get, post = "GET /a%2Fb?x HTTP/1.1\r\nHost: h\r\n\r\n", "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	const chunks = "PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: v\r\n\r\n"
	for _, s := range []string{
		get + get, post + get + chunks + post, chunks + "\r\n" + get, "GET http://h/abs HTTP/1.1\r\nHost: h\r\n\r\n" + get, get + "GET /own HTTP/1.1\r\nHost: h\r\n\r\n" + post,
		"POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi" + get, "GET /0 HTTP/1.0\r\n\r\n" + get, "HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n" + get,
		"GET /k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + get, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
	} {
		f.Add([]byte(s))
	}
	notes := &notebook{}
	addr := serveUnix(f, routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Method", r.Method)
			_, _ = io.WriteString(w, "own")
		}},
		serve: notes.serve,
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("PRI * HTTP/2")) {
			return
		}
		out := exchangeAll(t, addr, data)
		got := notes.take()
		want, picky := readByNetHTTP(data)
		for i, r := range got {
			if i == len(want) && picky {
				break
			}
			if i >= len(want) || r != want[i] {
				t.Fatalf("%q: the handler got %q, net/http reads %q", data, got, want)
			}
		}
		if served := countAnswers(t, data, out); served != len(got) {
			t.Errorf("%q: %d requests, %d whole answers: %q", data, len(got), served, out)
		}
	})
}

// serveUnix starts a server on a Unix socket: a fuzzer uses up TCP's ports.
func serveUnix(f *testing.F, r routes) string {
	f.Helper()
	dir, err := os.MkdirTemp("", "fuzz")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	s, err := Bind(context.Background(), Options{Addresses: []string{"unix:" + path}, Count: func(int) {}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	s.Start(r)
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = errors.Join(s.Drain(ctx), s.Finish(ctx)) // nothing is asked any more
		_ = os.RemoveAll(dir)                        // the system cleans what stays
	})
	return path
}

// exchangeAll sends data, ends the sending, and reads to the end.
func exchangeAll(t *testing.T, addr string, data []byte) []byte {
	t.Helper()
	conn, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		_, _ = conn.Write(data) // the server may have closed
		_ = conn.(*net.UnixConn).CloseWrite()
	})
	out, err := io.ReadAll(conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%q: no end", data)
	}
	sending.Wait()
	return out
}

// readByNetHTTP lists what net/http finds in the bytes of a connection, of what
// goes to the handler. Lone line ends between messages are passed over. It is
// picky when it stopped at a target that net/url does not take.
func readByNetHTTP(data []byte) (requests []string, picky bool) {
	br := bufio.NewReader(bytes.NewReader(data))
	for {
		for b, err := br.Peek(1); err == nil && (b[0] == '\r' || b[0] == '\n'); b, err = br.Peek(1) {
			_, _ = br.Discard(1)
		}
		r, err := http.ReadRequest(br)
		if err != nil {
			var target *url.Error
			return requests, errors.As(err, &target)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return requests, false
		}
		target := originForm(r.RequestURI)
		if path, _, _ := strings.Cut(target, "?"); path != "/own" {
			requests = append(requests, fmt.Sprintf("%s %s %q", r.Method, target, body))
		}
	}
}

// countAnswers counts the whole answers of the handler, and requires all
// answers to be whole.
func countAnswers(t *testing.T, data, out []byte) (served int) {
	br := bufio.NewReader(bytes.NewReader(out))
	for {
		if _, err := br.Peek(1); err != nil {
			return served
		}
		ahead, _ := br.Peek(br.Buffered())
		head, _, _ := bytes.Cut(ahead, []byte("\r\n\r\n"))
		method := http.MethodGet
		if bytes.Contains(head, []byte("\r\nX-Method: HEAD")) {
			method = http.MethodHead
		}
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil {
			t.Errorf("%q: no whole answer: %v in %q", data, err, out)
			return served
		}
		if resp.Header.Get("X-Handler") != "" {
			served++
		}
	}
}
