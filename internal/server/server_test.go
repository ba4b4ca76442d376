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
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// routes are handlers for a test.
type routes struct {
	own   map[string]http.HandlerFunc
	serve func(context.Context, *httpmsg.Request, httpmsg.ResponseWriter) error
}

func (r routes) Own(path string) http.Handler {
	if h, ok := r.own[path]; ok {
		return h
	}
	return nil
}

func (r routes) Serve(ctx context.Context, q *httpmsg.Request, w httpmsg.ResponseWriter) error {
	return r.serve(ctx, q, w)
}

func (r routes) Refuse(_ *httpmsg.Request, w httpmsg.ResponseWriter, err error) error {
	var refusal *httpmsg.Error
	if !errors.As(err, &refusal) {
		return httpmsg.ErrAborted
	}
	return w.Head(refusal.Status, nil, 0)
}

// started is a server that runs.
type started struct {
	*Server
	addr string

	mu     sync.Mutex
	counts []int
	log    bytes.Buffer
}

func (s *started) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(p)
}

func (s *started) counted() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int(nil), s.counts...)
}

func start(t *testing.T, r routes) *started {
	t.Helper()
	return startWith(t, Options{Addresses: []string{"127.0.0.1:0"}}, r)
}

func startWith(t *testing.T, o Options, r routes) *started {
	t.Helper()
	s := &started{}
	o.Log = slog.New(slog.NewTextHandler(s, nil))
	o.Count = func(status int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.counts = append(s.counts, status)
	}
	var err error
	if s.Server, err = Bind(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s.addr = s.Addresses()[0]
	s.Start(r)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := errors.Join(s.Drain(ctx), s.Finish(ctx)); err != nil && !t.Failed() {
			t.Logf("end: %v", err)
		}
	})
	return s
}

// talk sends bytes and returns all that comes back.
func (s *started) talk(t *testing.T, text string) (string, error) {
	t.Helper()
	conn := s.dial(t)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	return string(b), err
}

func (s *started) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestBind(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	first, err := bind(t, log, "127.0.0.1:0", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(first)
	if !first.Loopback() {
		t.Error("loopback is not seen as such")
	}
	addresses := first.Addresses()
	_, port, _ := net.SplitHostPort(addresses[0])
	if len(addresses) == 2 && addresses[1] != "[::1]:"+port {
		t.Errorf("bound to %v", addresses)
	}
	_, err = bind(t, log, addresses[0])
	if err == nil || err.Error() != addresses[0]+" is in use by another program; choose another with --address" {
		t.Errorf("a port in use: %v", err)
	}
	if _, err = bind(t, log, "192.0.2.1:0"); err == nil || !strings.Contains(err.Error(), "192.0.2.1") {
		t.Errorf("an address of somebody else: %v", err)
	}
	// A further address that the machine lacks is left out.
	second, err := bind(t, log, "127.0.0.1:0", "[2001:db8::1]:0")
	if err != nil || len(second.Addresses()) != 1 {
		t.Fatalf("a missing address family: %v", err)
	}
	closeAll(second)
	var warned bytes.Buffer
	third, err := bind(t, slog.New(slog.NewTextHandler(&warned, nil)), "127.0.0.1:0", addresses[0])
	if err != nil || len(third.Addresses()) != 1 || !strings.Contains(warned.String(), "level=WARN") {
		t.Fatalf("a further port in use: %v, log %q", err, warned.String())
	}
	closeAll(third)
	every, err := bind(t, log, "0.0.0.0:0")
	if err != nil || every.Loopback() {
		t.Fatalf("all interfaces pass for loopback: %v", err)
	}
	closeAll(every)
}

func bind(t *testing.T, log *slog.Logger, addresses ...string) (*Server, error) {
	t.Helper()
	return Bind(t.Context(), Options{Addresses: addresses, Log: log})
}

func closeAll(s *Server) {
	for _, l := range s.listeners {
		l.Close()
	}
}

func TestPanics(t *testing.T) {
	s := start(t, routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", "half"); panic("own") }},
		serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			if r.Target == "/late" {
				_ = w.Head(200, nil, 10)
				_ = w.Flush()
			}
			panic("at " + r.Target)
		},
	})
	for _, target := range []string{"/own", "/early"} {
		got, err := s.talk(t, "GET "+target+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if err != nil || !strings.HasPrefix(got, "HTTP/1.1 500 ") || strings.Contains(got, "half") {
			t.Errorf("%s: %q, %v", target, got, err)
		}
	}
	if got, _ := s.talk(t, "GET /late HTTP/1.1\r\nHost: h\r\n\r\n"); got != "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" {
		t.Errorf("late: %q", got)
	}
	s.mu.Lock()
	log := s.log.String()
	s.mu.Unlock()
	for _, part := range []string{"panic=own", "at /early", "at /late", "server_test.go"} {
		if !strings.Contains(log, part) {
			t.Errorf("the log lacks %s:\n%s", part, log)
		}
	}
	if got := fmt.Sprint(s.counted()); got != "[500 500 200]" {
		t.Errorf("counted %s", got)
	}
}

func TestAbortedAnswersBreak(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		length := int64(-1)
		if r.Target == "/length" {
			length = 10
		}
		_ = w.Head(200, nil, length)
		_, _ = w.Write([]byte("abc"))
		_ = w.Flush()
		return httpmsg.ErrAborted
	}})
	for _, target := range []string{"/length", "/chunked"} {
		resp, err := http.Get("http://" + s.addr + target)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if resp.Body.Close(); err == nil {
			t.Errorf("%s: %q passed for the whole answer", target, b)
		}
		if got, err := s.talk(t, "GET "+target+" HTTP/1.0\r\n\r\n"); err == nil {
			t.Errorf("HTTP/1.0 %s: %q passed for the whole answer", target, got)
		}
	}
}

// A client that sends on while it is refused gets its answer all the same.
func TestRefusedBodies(t *testing.T) {
	s := start(t, routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) }},
		serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			if strings.HasPrefix(r.Target, "/some") {
				_, _ = io.ReadFull(r.Body, make([]byte, 3))
			}
			return w.Head(413, nil, 0)
		},
	})
	for _, target := range []string{"/own", "/none", "/some"} {
		for _, size := range []int{10, 100 << 10, 8 << 20} {
			req, _ := http.NewRequest("POST", "http://"+s.addr+target, io.LimitReader(endless{}, int64(size)))
			req.ContentLength = int64(size)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Errorf("%s with %d bytes: %v", target, size, err)
				continue
			}
			resp.Body.Close()
			if small := size == 10 && target != "/some"; resp.StatusCode != 413 || resp.Close == small {
				t.Errorf("%s with %d bytes: %d, close %v", target, size, resp.StatusCode, resp.Close)
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// One that stops in the middle is answered, and its connection closed: what
	// comes later must not be taken for a request.
	conn := s.dial(t)
	fmt.Fprint(conn, "POST /some HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabcdef")
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 413 || !resp.Close {
		t.Fatalf("%+v, %v", resp, err)
	}
	fmt.Fprint(conn, "GET /none HTTP/1.1\r\nHost: h\r\n\r\n")
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Errorf("the body's rest was answered: %q", rest)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestNoReadsAfterTheAnswer(t *testing.T) {
	body := make(chan io.Reader, 1)
	s := start(t, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		_, _ = r.Body.Read(make([]byte, 1))
		body <- r.Body
		return w.Head(204, nil, -1)
	}})
	if _, err := s.talk(t, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"); err != nil {
		t.Error(err)
	}
	if n, err := (<-body).Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestHintsEndWithTheAnswer(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		if err := w.Informational(103, httpmsg.Header{{Name: "Link", Value: "</a>"}}); err != nil {
			t.Error(err)
		}
		err := w.Head(204, nil, -1)
		if late := w.Informational(103, nil); !errors.Is(late, errAnswered) {
			t.Errorf("a late hint: %v", late)
		}
		return err
	}})
	got, _ := s.talk(t, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if got != "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestFinishTellsWhatWasCut(t *testing.T) {
	for _, upgrade := range []bool{false, true} {
		begun := make(chan bool)
		s := start(t, routes{serve: func(ctx context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
			if upgrade {
				conn, err := w.Upgrade(nil)
				if err != nil {
					t.Error(err)
					return err
				}
				defer conn.Close()
			}
			close(begun)
			<-ctx.Done()
			return httpmsg.ErrAborted
		}})
		fmt.Fprint(s.dial(t), "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			t.Error(err)
		}
		if err := s.Finish(ctx); (err == nil) != upgrade {
			t.Errorf("upgraded %v: %v", upgrade, err)
		}
	}
}

func TestOriginForm(t *testing.T) {
	for target, want := range map[string]string{
		"/a%2Fb?x": "/a%2Fb?x", "*": "*", "http://h": "/", "http://h/": "/", "http://h:1/a//b?c": "/a//b?c", "HTTP://u@h?x=/": "/?x=/",
		"h:443": "h:443", "/x?u=http://y/z": "/x?u=http://y/z", "//a/b": "//a/b", "a?://b/c": "a?://b/c",
	} {
		if got := originForm(target); got != want {
			t.Errorf("%q became %q, want %q", target, got, want)
		}
	}
}

func FuzzOriginForm(f *testing.F) {
	for _, s := range []string{"/a", "*", "http://h/x?y", "http://h?x", "h:1", "://", "", "a://b://c/d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		got := originForm(target)
		if got != target && (!strings.HasPrefix(got, "/") || !strings.HasSuffix(target, got[1:])) {
			t.Errorf("%q became %q", target, got)
		}
		if strings.HasPrefix(target, "/") && got != target {
			t.Errorf("%q was changed to %q", target, got)
		}
		if again := originForm(got); again != got && strings.HasPrefix(got, "/") {
			t.Errorf("%q, then %q", got, again)
		}
	})
}
