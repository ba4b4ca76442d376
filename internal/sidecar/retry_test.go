package sidecar

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/micro/sidecar/internal/testserver"
)

// flaky is a service of several nodes that notes the requests' bodies and
// answers the first ones with fail.
type flaky struct {
	mu     sync.Mutex
	left   int // to fail
	fail   http.HandlerFunc
	bodies []string
	nodes  []string // which node got each
}

func (f *flaky) serve(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.bodies, f.nodes = append(f.bodies, string(body)), append(f.nodes, name)
		fails, fail := f.left > 0, f.fail
		f.left--
		f.mu.Unlock()
		if fails {
			fail(w, r)
			return
		}
		w.Header().Set("Content-Type", jsonType)
		_, _ = io.WriteString(w, `{"id":0,"result":{"ok":true},"error":null}`)
	}
}

// reset makes the next n requests fail.
func (f *flaky) reset(n int, fail http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.fail, f.bodies, f.nodes = n, fail, nil, nil
}

func (f *flaky) seen() (bodies, nodes []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bodies, f.nodes
}

func startFlaky(t *testing.T, nodes int, change func(*Config)) (*running, *flaky) {
	t.Helper()
	s, f := run(t, change), &flaky{}
	for i := range nodes {
		name := fmt.Sprint("n", i)
		s.register("go.micro.srv.flaky", name, startHTTP(t, f.serve(name)), "")
	}
	return s, f
}

// answers fails with a status.
func answers(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// breaks cuts the connection.
func breaks(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Which requests are sent again, after which failures. What may have been
// carried out is not, unless its method or its sender says that it may be: no
// ticket is booked twice (dapr#4568, aspire#4631).
func TestRetries(t *testing.T) {
	t.Parallel()
	fails := map[string]http.HandlerFunc{
		"reset": breaks, "502": answers(502), "503": answers(503), "504": answers(504),
		"500": answers(500), "400": answers(400), "429": answers(429), "404": answers(404), "501": answers(501),
	}
	gateway := map[string]bool{"reset": true, "502": true, "503": true, "504": true}
	for _, test := range []struct {
		method, path string
		header       []string
		repeatable   bool
	}{
		{"GET", "/flaky/x", []string{"Micro-Handler", "proxy"}, true},
		{"HEAD", "/flaky/x", []string{"Micro-Handler", "proxy"}, true},
		{"OPTIONS", "/flaky/x", []string{"Micro-Handler", "proxy"}, true},
		{"PUT", "/flaky/x", []string{"Micro-Handler", "proxy"}, true},
		{"DELETE", "/flaky/x", []string{"Micro-Handler", "proxy"}, true},
		{"POST", "/flaky/x", []string{"Micro-Handler", "proxy"}, false},
		{"PATCH", "/flaky/x", []string{"Micro-Handler", "proxy"}, false},
		{"POST", "/flaky/x", []string{"Micro-Handler", "proxy", "Idempotency-Key", "8e03978e"}, true},
		{"POST", "/flaky/x", []string{"Micro-Handler", "proxy", "Micro-Idempotent", "true"}, true},
		{"PATCH", "/flaky/x", []string{"Micro-Handler", "proxy", "Micro-Idempotent", "false"}, false},
		{"POST", "/flaky/say/hello", nil, false},
		{"POST", "/flaky/say/hello", []string{"Micro-Idempotent", "true"}, true},
		{"POST", "/flaky/say/hello", []string{"Idempotency-Key", `"8e03978e"`}, true},
	} {
		s, f := startFlaky(t, 2, nil) // whose nodes have not failed often enough to be out
		for name, fail := range fails {
			f.reset(1, fail)
			status, text := s.try(test.method, test.path, jsonType, `{"ticket":1}`, test.header...)
			bodies, nodes := f.seen()
			again := test.repeatable && gateway[name]
			want := 1
			if again {
				want = 2
			}
			if len(nodes) != want || again != (status == 200) {
				t.Errorf("%s %s %v, %s: %d %s; nodes %v", test.method, test.path, test.header, name, status, text, nodes)
			}
			// A kept connection that broke is replaced first, by one to the same node.
			if again && (nodes[0] == nodes[1] && name != "reset" || bodies[0] != bodies[1] || test.method == "PUT" && bodies[1] != `{"ticket":1}`) {
				t.Errorf("%s %s, %s: nodes %v got %q", test.method, test.path, name, nodes, bodies)
			}
		}
	}
}

func TestRetriesTurnedOff(t *testing.T) {
	t.Parallel()
	s, f := startFlaky(t, 2, noRetries)
	for _, fail := range []http.HandlerFunc{breaks, answers(503)} {
		f.reset(1, fail)
		if status, _ := s.try("GET", "/flaky/x", "", "", "Micro-Handler", "proxy"); status < 500 {
			t.Errorf("status %d", status)
		}
		if _, nodes := f.seen(); len(nodes) != 1 {
			t.Errorf("sent to %v", nodes)
		}
	}
}

// Requests that a node with HTTP/2 refuses are retries like all others: none with
// --client_retries=0, as often as it says else.
func TestRefusedStreamsAreRetries(t *testing.T) {
	t.Parallel()
	for retries, want := range map[int]int32{0: 1, 1: 2, 3: 4} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		var seen atomic.Int32
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go refuseStreams(conn, &seen)
			}
		}()
		s := run(t, func(c *Config) { c.Retries = retries })
		s.registerAt("go.micro.srv.full", "n", l.Addr().String(), map[string]string{"h2c": "true"})
		s.refused(502, "REFUSED_STREAM", "POST", "/full/x", "", "x", "Micro-Handler", "proxy")
		if n := seen.Load(); n != want {
			t.Errorf("%d retries: sent %d times", retries, n)
		}
	}
}

// refuseStreams is a node that takes no streams.
func refuseStreams(conn net.Conn, seen *atomic.Int32) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		if h, ok := f.(*http2.HeadersFrame); ok {
			seen.Add(1)
			_ = framer.WriteRSTStream(h.StreamID, http2.ErrCodeRefusedStream)
		}
	}
}

// What a node answered last is what the client gets, whole, when all fail.
func TestTheLastAnswerIsPassedOn(t *testing.T) {
	t.Parallel()
	s, f := startFlaky(t, 2, nil)
	f.reset(9, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Own", "yes")
		w.WriteHeader(503)
		_, _ = io.WriteString(w, "closed for today")
	})
	status, text, h := s.full("GET", "/flaky/x", "", "", "Micro-Handler", "proxy")
	if _, nodes := f.seen(); status != 503 || text != "closed for today" || h.Get("X-Own") != "yes" || len(nodes) != 2 {
		t.Errorf("%d %q %v after %v", status, text, h, nodes)
	}
}

// Bodies up to 64 KiB are sent again whole; of larger ones and of those that
// stream nothing is kept.
func TestReplay(t *testing.T) {
	t.Parallel()
	s, f := startFlaky(t, 2, nil)
	for _, test := range []struct {
		size    int
		chunked bool
		again   bool
	}{{1, false, true}, {10_000, false, true}, {20_000, false, true}, {64 << 10, false, true}, {64<<10 + 1, false, false}, {10, true, false}} {
		for _, fail := range []http.HandlerFunc{breaks, answers(503)} {
			f.reset(1, fail)
			body := strings.Repeat("b", test.size)
			var in io.Reader = strings.NewReader(body)
			if test.chunked {
				in = struct{ io.Reader }{in}
			}
			r, err := http.NewRequest("PUT", s.url+"/flaky/x", in)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Micro-Handler", "proxy")
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
			answer, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			bodies, _ := f.seen()
			if (answer.StatusCode == 200) != test.again || len(bodies) > 0 && bodies[len(bodies)-1] != body || test.again != (len(bodies) == 2) {
				t.Errorf("%+v: %d, %d tries", test, answer.StatusCode, len(bodies))
			}
		}
	}
}

// A body that streams is not held back for the sake of a retry that may come.
func TestStreamsAreNotHeldBack(t *testing.T) {
	t.Parallel()
	came := make(chan string, 1)
	n := startNode(t, func(conn *net.TCPConn, br *bufio.Reader) {
		readHead(br)
		line, _ := br.ReadString('\n')
		piece, _ := br.ReadString('\n')
		came <- line + piece
		_, _ = io.Copy(io.Discard, br)
	})
	s := proxying(t, n, nil)
	c := dial(t, s)
	c.send("PUT /foo/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
	select {
	case got := <-came:
		if got != "5\r\nfirst\r\n" {
			t.Errorf("the node got %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing came to the node")
	}
	c.conn.Close()
}

// A node that wants to be left alone is, and its service with it; for longer than
// there is time, nobody waits.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	s, f := startFlaky(t, 2, nil)
	wait := func(seconds string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", seconds)
			w.WriteHeader(503)
		}
	}
	for _, test := range []struct {
		method, path, header string
	}{{"GET", "/flaky/x", "Micro-Handler"}, {"POST", "/flaky/say/hello", "Idempotency-Key"}} {
		f.reset(1, wait("1"))
		begun := time.Now()
		status, _ := s.try(test.method, test.path, jsonType, "", test.header, "proxy")
		if status != 200 || time.Since(begun) < time.Second {
			t.Errorf("%s: %d after %v", test.method, status, time.Since(begun))
		}
		f.reset(1, wait("60"))
		status, _ = s.try(test.method, test.path, jsonType, "", test.header, "proxy")
		if _, nodes := f.seen(); status < 500 || len(nodes) != 1 {
			t.Errorf("%s: %d, sent to %v", test.method, status, nodes)
		}
	}
}

// Nothing runs on after the total timeout, however often it may be tried again
// (linkerd#2369), and a try is given up in time for another.
func TestTimeoutsOfTries(t *testing.T) {
	t.Parallel()
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() } // given up
	for _, test := range []struct {
		name         string
		change       func(*Config)
		method, path string
		header       []string
		hanging      int
		status, seen int
		longest      time.Duration
	}{
		{"half of the time by itself", nil, "GET", "/flaky/x", []string{"Micro-Handler", "proxy"}, 1, 200, 2, 0},
		{"half of the time of a call", nil, "POST", "/flaky/say/hello", []string{"Micro-Idempotent", "true"}, 1, 200, 2, 0},
		{"a call that must not be repeated", nil, "POST", "/flaky/say/hello", nil, 1, 504, 1, 4 * time.Second},
		{"a body", nil, "PUT", "/flaky/x", []string{"Micro-Handler", "proxy"}, 1, 200, 2, 0},
		{"a short Timeout", nil, "POST", "/flaky/say/hello", []string{"Micro-Idempotent", "true", "Timeout", "3s"}, 1, 200, 2, 0},
		{"all hang", nil, "GET", "/flaky/x", []string{"Micro-Handler", "proxy"}, 9, 504, 2, 4 * time.Second},
		{"a hundred retries", func(c *Config) { c.Retries, c.TryTimeout = 100, 200*time.Millisecond }, "GET", "/flaky/x", []string{"Micro-Handler", "proxy"}, 99, 504, 0, 3 * time.Second}, // a pause that would last too long, at most 1s, is not begun
		{"as set, for what must not be repeated", func(c *Config) { c.TryTimeout = time.Second }, "POST", "/flaky/x", []string{"Micro-Handler", "proxy"}, 1, 504, 1, time.Second},
		{"as set, for a call", func(c *Config) { c.TryTimeout = time.Second }, "POST", "/flaky/say/hello", nil, 1, 504, 1, time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, f := startFlaky(t, 3, func(c *Config) {
				c.RequestTimeout = 4 * time.Second
				if test.change != nil {
					test.change(c)
				}
			})
			f.reset(test.hanging, hangs)
			begun := time.Now()
			status, text := s.try(test.method, test.path, jsonType, "{}", test.header...)
			took := time.Since(begun)
			if _, nodes := f.seen(); status != test.status || test.seen > 0 && len(nodes) != test.seen {
				t.Errorf("%d %s, sent to %v", status, text, nodes)
			}
			if took < test.longest || took > test.longest+20*time.Second {
				t.Errorf("it took %v, want %v", took, test.longest)
			}
		})
	}
}

// A gRPC method's UNAVAILABLE is followed by another node when the caller says
// that it may.
func TestRetriesOfGRPC(t *testing.T) {
	t.Parallel()
	s := run(t, nil)
	var calls atomic.Int32
	for _, id := range []string{"a", "b"} {
		g := testserver.StartGRPC(t, testserver.ReflectionV1, func(g *grpc.Server) {
			g.RegisterService(&grpc.ServiceDesc{ServiceName: "x.Desk", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
				MethodName: "Ask", Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
					calls.Add(1)
					return nil, status.Error(codes.Unavailable, "not now")
				},
			}}}, nil)
		})
		s.registerAt("go.micro.srv.desk", id, g.Addr, map[string]string{"protocol": "grpc"})
	}
	for _, test := range []struct {
		header []string
		calls  int32
	}{{nil, 1}, {[]string{"Micro-Idempotent", "true"}, 2}} {
		calls.Store(0)
		status, text := s.try("POST", "/rpc", jsonType, `{"service":"go.micro.srv.desk","method":"/x.Desk/Ask"}`, test.header...)
		if status != 503 || calls.Load() != test.calls {
			t.Errorf("%v: %d %s, %d calls", test.header, status, text, calls.Load())
		}
	}
}

// Requests over --max_concurrency are 429, with the time to come back.
func TestMaxConcurrency(t *testing.T) {
	t.Parallel()
	s, f := startFlaky(t, 1, func(c *Config) { c.MaxConcurrency = 1 })
	release, arrived := make(chan struct{}), make(chan struct{})
	f.reset(1, func(http.ResponseWriter, *http.Request) { close(arrived); <-release })
	first := make(chan int)
	go func() {
		status, _ := s.try("POST", "/flaky/x", "", "", "Micro-Handler", "proxy")
		first <- status
	}()
	<-arrived
	for _, path := range []string{"/flaky/x", "/flaky/say/hello"} {
		status, text, h := s.full("POST", path, jsonType, "")
		if status != 429 || h.Get("Retry-After") != "1" || !strings.Contains(text, "--max_concurrency") {
			t.Errorf("%s: %d %s %v", path, status, text, h)
		}
	}
	s.expect(200, "", "GET", "/livez", "", "")
	close(release)
	if status := <-first; status != 200 {
		t.Errorf("the first: %d", status)
	}
	s.expect(200, `{"ok":true}`, "POST", "/flaky/say/hello", jsonType, "")
}
