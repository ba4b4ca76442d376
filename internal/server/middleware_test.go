package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
)

// told answers with the request as the handler got it.
func told() routes {
	return routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "own %s %s %s", r.Method, r.Header.Get("X-Added"), body)
		}},
		serve: func(_ context.Context, q *httpmsg.Request, w httpmsg.ResponseWriter) error {
			body, err := io.ReadAll(q.Body)
			if err != nil {
				return err
			}
			var text strings.Builder
			fmt.Fprintf(&text, "%s %s %s\n", q.Method, q.Target, q.Host)
			for _, f := range q.Header {
				fmt.Fprintf(&text, "%s: %s\n", f.Name, f.Value)
			}
			fmt.Fprintf(&text, "%s\n", body)
			if err := w.Head(200, nil, int64(text.Len())); err != nil {
				return err
			}
			_, err = io.WriteString(w, text.String())
			return err
		},
	}
}

// wrapped is a middleware's ResponseWriter.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func withMiddleware(m ...func(http.Handler) http.Handler) Options {
	return Options{Addresses: []string{"127.0.0.1:0"}, Middleware: m}
}

func TestMiddlewareThatChangesNothing(t *testing.T) {
	passes := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapped{w}, r.WithContext(r.Context())) })
	}
	s := startWith(t, withMiddleware(passes), told())
	for _, length := range []string{"Content-Length: 4\r\n\r\nbody", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"} {
		got, err := s.talk(t, "POST /a%2Fb//c?x=%zz HTTP/1.1\r\nhOsT: there\r\nx-b: 1\r\nX-A: 2\r\nx-B: 3\r\nConnection: close\r\n"+length)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"POST /a%2Fb//c?x=%zz there\n", "x-b: 1\nX-A: 2\nx-B: 3\n", "\nbody\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("the handler got %q, want %q in it", got, want)
			}
		}
	}
	got, err := s.talk(t, "POST /own HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
	if err != nil || !strings.Contains(got, "own POST  body") {
		t.Errorf("an own path answered %q, %v", got, err)
	}
}

func TestMiddlewareChangesRequests(t *testing.T) {
	changes := func(next http.Handler) http.Handler {
		return http.StripPrefix("/v9", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("X-Added", "it")
			r.Header.Del("X-Secret")
			r.Host = "elsewhere"
			r.Body = io.NopCloser(io.LimitReader(r.Body, 2))
			r.ContentLength = 2
			next.ServeHTTP(w, r)
		}))
	}
	s := startWith(t, withMiddleware(changes), told())
	got, err := s.talk(t, "POST /v9/x?q HTTP/1.1\r\nHost: there\r\nx-kept: 1\r\nx-seCret: s\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, "POST /x?q elsewhere\n") || !strings.Contains(got, "x-kept: 1\n") || !strings.Contains(got, "X-Added: it\n") ||
		strings.Contains(got, "ecret") || !strings.Contains(got, "\nbo\n") {
		t.Errorf("the handler got %q", got)
	}
	got, err = s.talk(t, "POST /v9/own HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
	if err != nil || !strings.Contains(got, "own POST it bo") {
		t.Errorf("an own path answered %q, %v", got, err)
	}
}

func TestMiddlewareAnswersAndPanics(t *testing.T) {
	var order []string
	mark := func(name string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				order = append(order, name)
				next.ServeHTTP(w, r)
			})
		}
	}
	refuses := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/no":
				http.Error(w, "no", http.StatusTeapot)
			case "/panic":
				panic("middleware")
			case "/context":
				next.ServeHTTP(w, r.WithContext(context.Background()))
			default:
				next.ServeHTTP(w, r)
			}
		})
	}
	s := startWith(t, withMiddleware(mark("first"), mark("second"), refuses), told())
	for path, want := range map[string]string{"/no": "HTTP/1.1 418 ", "/panic": "HTTP/1.1 500 ", "/context": "HTTP/1.1 500 ", "/yes": "HTTP/1.1 200 "} {
		order = nil
		got, err := s.talk(t, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if strings.Join(order, " ") != "first second" {
			t.Errorf("%s went through %q", path, order)
		}
	}
	if n := len(s.counted()); n != 4 {
		t.Errorf("%d answers were counted", n)
	}
}

// Streams and upgrades go through a wrapper that can be unwrapped.
func TestMiddlewareAndUpgrades(t *testing.T) {
	passes := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(wrapped{w}, r) })
	}
	s := startWith(t, withMiddleware(passes), routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		conn, err := w.Upgrade(httpmsg.Header{{Name: "Upgrade", Value: "echo"}, {Name: "Connection", Value: "Upgrade"}})
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _ = io.CopyN(conn, conn, 4)
		return nil
	}})
	conn := s.dial(t)
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprint(conn, "GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	fmt.Fprint(conn, "ping")
	var b [4]byte
	if _, err := io.ReadFull(in, b[:]); err != nil || string(b[:]) != "ping" {
		t.Errorf("%q, %v", b, err)
	}
}
