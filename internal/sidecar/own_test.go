package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

var errEngine = errors.New("engine is away")

func TestProbesAndHealth(t *testing.T) {
	s := run(t, nil)
	for _, path := range []string{"/health", "/livez", "/readyz"} {
		s.expect(200, "ok\n", "GET", path, "", "")
	}
}

// app is an application whose health the test decides.
func app(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var status atomic.Int64
	status.Store(200)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
	t.Cleanup(s.Close)
	return s, &status
}

func withApp(s *httptest.Server) func(*Config) {
	return func(c *Config) {
		c.App = App{Name: "foo", Address: s.Listener.Addr().String(), Host: "127.0.0.1", Port: 9090}
		c.Healthcheck = Healthcheck{URL: s.URL, Interval: 5 * time.Millisecond, Timeout: time.Second, Fall: 1, Rise: 1}
		c.DrainDelay = time.Millisecond
	}
}

func TestApplicationIsRegisteredWhileHealthy(t *testing.T) {
	server, status := app(t)
	status.Store(503)
	s := run(t, withApp(server))
	registered := func() bool { got, _ := s.try("GET", "/registry?service=foo", "", ""); return got == 200 }
	if registered() {
		t.Error("registered before a good probe")
	}
	s.refused(503, "503", "GET", "/health", "", "")
	status.Store(200)
	eventually(t, "it is registered after a good probe", registered)
	s.expect(200, "ok\n", "GET", "/health", "", "")
	status.Store(404)
	eventually(t, "it is taken out", func() bool { return !registered() })
	s.refused(404, "404", "GET", "/health", "", "")
	status.Store(200)
	eventually(t, "it is put back", registered)
	server.Close()
	eventually(t, "a dead one is taken out", func() bool { return !registered() })
	s.refused(503, "refused", "GET", "/health", "", "")
}

func TestApplicationIsDeregisteredAtTheEnd(t *testing.T) {
	server, _ := app(t)
	s := run(t, withApp(server))
	eventually(t, "it is registered", func() bool { got, _ := s.try("GET", "/registry?service=foo", "", ""); return got == 200 })
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if names, err := s.registry.List(t.Context()); err != nil || len(names) != 0 {
		t.Errorf("left in the registry: %v, %v", names, err)
	}
}

func TestApplicationWithoutCheckIsRegisteredAtOnce(t *testing.T) {
	s := run(t, func(c *Config) {
		c.App = App{Name: "foo", Version: "1.2", ID: "me", Host: "10.0.0.7", Port: 9090, Metadata: map[string]string{"a": "b"}}
	})
	eventually(t, "it is registered", func() bool { got, _ := s.try("GET", "/registry?service=foo", "", ""); return got == 200 })
	s.expect(200, `{"name":"foo","version":"1.2","metadata":{},"endpoints":[],"nodes":[{"id":"me","address":"10.0.0.7","port":9090,"metadata":{"a":"b"}}]}`,
		"GET", "/registry?service=foo", "", "")
}

// An orderly stop lets what is under way end, and the application's calls are
// served until then.
func TestStopFinishesRequestsInFlight(t *testing.T) {
	s := run(t, nil)
	begun, finish := make(chan bool), make(chan bool)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-finish
		w.WriteHeader(204)
	}))
	defer slow.Close()
	s.register("go.micro.srv.slow", "n", slow, "")
	answered := make(chan int)
	go func() {
		status, _ := s.try("GET", "/slow/", "", "", "Micro-Handler", "proxy")
		answered <- status
	}()
	<-begun
	s.stop()
	eventually(t, "no new connections are taken", func() bool { status, _ := s.try("GET", "/livez", "", ""); return status == 0 })
	finish <- true
	if status := <-answered; status != 204 {
		t.Errorf("the request in flight got %d", status)
	}
}

func TestStopCutsAtTheDeadline(t *testing.T) {
	s := run(t, func(c *Config) { c.ShutdownGrace = 200 * time.Millisecond })
	begun := make(chan bool, 1)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- true
		<-r.Context().Done()
	}))
	defer slow.Close()
	s.register("go.micro.srv.slow", "n", slow, "")
	answered := make(chan int)
	go func() {
		status, _ := s.try("GET", "/slow/", "", "", "Micro-Handler", "proxy")
		answered <- status
	}()
	<-begun
	start := time.Now()
	if err := s.end(); err == nil {
		t.Error("requests were cut, and nobody was told")
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("the stop took %v with a grace of 200ms", took)
	}
	if status := <-answered; status/100 == 2 {
		t.Errorf("the request that was cut got %d", status)
	}
}

func TestStats(t *testing.T) {
	s := run(t, func(c *Config) { c.EnableStats = true })
	s.refused(404, "", "POST", "/nosuch/x", "application/json", `{}`)
	_, body := s.try("GET", "/stats", "", "", "Accept", "application/json")
	var r struct {
		Started  int64
		Memory   string
		Threads  int
		Counters []struct {
			Status map[string]int `json:"status_codes"`
			Total  int            `json:"total_reqs"`
		}
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	sum := map[string]int{}
	for _, c := range r.Counters {
		for class, n := range c.Status {
			sum[class] += n
		}
	}
	if sum["40x"] != 1 || sum["20x"] < 1 || r.Started == 0 || r.Threads == 0 || !strings.HasSuffix(r.Memory, "mb") {
		t.Errorf("got %s", body)
	}
	s.refused(404, "", "POST", "/stats/x", "application/json", "{}") // not ours: the handler's
}

func TestStatsAreOffByDefault(t *testing.T) {
	s := run(t, nil)
	s.refused(404, "", "GET", "/stats", "", "")
}

func TestBrowsersAreKeptOut(t *testing.T) {
	s := run(t, func(c *Config) {
		c.CORS = []string{"https://good.example"}
		c.AllowedHosts = []string{"sidecar.internal"}
	})
	server := node(t, "n")
	s.register("go.micro.srv.foo", "n", server, "")
	const js = "application/json"
	s.refused(403, "evil", "GET", "/registry", "", "", "Origin", "https://evil.example")
	s.refused(403, "evil", "POST", "/foo/bar", js, `{}`, "Origin", "https://evil.example")
	s.refused(403, "null", "POST", "/rpc", js, `{}`, "Origin", "null")
	s.refused(403, "evil", "POST", "/broker?topic=a", "", "x", "Origin", "https://evil.example")
	s.refused(403, "rebound", "GET", "/registry", "", "", "Host", "rebound.example")
	s.refused(403, "rebound", "POST", "/foo/bar", js, `{}`, "Host", "rebound.example:8081")
	s.expect(200, "", "GET", "/registry", "", "", "Host", "sidecar.internal:8081")
	s.expect(200, "", "GET", "/registry", "", "", "Host", "localhost:1")
	s.expect(200, "", "GET", "/registry", "", "", "Origin", s.url)
	// What is proxied is the node's own affair.
	s.expect(200, "", "GET", "/foo/", "", "", "Origin", "https://evil.example", "Host", "rebound.example", "Micro-Handler", "proxy")

	_, _, h := s.full("POST", "/foo/bar", js, `{}`, "Origin", "https://good.example")
	if h.Get("Access-Control-Allow-Origin") != "https://good.example" || h.Get("Vary") != "Origin" {
		t.Errorf("an allowed origin got %v", h)
	}
	status, _, h := s.full("OPTIONS", "/foo/bar", "", "", "Origin", "https://good.example",
		"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type")
	if status != 204 || h.Get("Access-Control-Allow-Headers") != "content-type" {
		t.Errorf("preflight: %d %v", status, h)
	}
	if _, resp, err := websocket.Dial(t.Context(), s.url+"/broker?topic=a", &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
	}); err == nil || resp.StatusCode != 403 {
		t.Errorf("a foreign page got a WebSocket: %v", err)
	}
}

// A listener beyond loopback opens itself, and none of the others.
func TestEachListenerHasItsOwnGuard(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	s := run(t, func(c *Config) {
		c.Addresses = []string{"0.0.0.0:0", "[::1]:0", "unix:" + socket} // the second has the port of the first
	})
	stranger := node(t, "stranger") // is not registered
	call := fmt.Sprintf(`{"service":"foo","method":"Say.Hello","request":{},"address":%q}`, strings.TrimPrefix(stranger.URL, "http://"))
	const js = "application/json"
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.url, "http://"))

	s.url = "http://127.0.0.1:" + port // of the first
	s.expect(200, "", "GET", "/registry", "", "", "Host", "sidecar.example")
	s.refused(404, "service foo not found", "POST", "/rpc", js, call, "Host", "sidecar.example")

	if conn, err := net.Dial("tcp", "[::1]:"+port); err == nil {
		conn.Close()
		s.url = "http://[::1]:" + port
		s.refused(403, "rebound", "GET", "/registry", "", "", "Host", "rebound.example")
		s.refused(403, "rebound", "POST", "/foo/bar", js, `{}`, "Host", "rebound.example")
		s.expect(200, "", "GET", "/registry", "", "")
		s.expect(200, "", "POST", "/rpc", js, call)
	}

	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Post("http://any.example/rpc", js, strings.NewReader(call))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("any address by the unix socket: %d", resp.StatusCode)
	}
}

func TestLogTellsWhatRuns(t *testing.T) {
	s := run(t, nil)
	first, rest, _ := strings.Cut(s.log.String(), "\n")
	if !strings.Contains(first, "loopback") || !strings.Contains(first, "127.0.0.1:") {
		t.Errorf("first line: %s", first)
	}
	for _, part := range []string{"registry=memory", "broker=memory", "handler=rpc", "namespace=go.micro.srv"} {
		if !strings.Contains(rest, part) {
			t.Errorf("the log lacks %s:\n%s", part, rest)
		}
	}
}

func TestPortInUse(t *testing.T) {
	s := run(t, nil)
	cfg := testConfig()
	cfg.Addresses = []string{strings.TrimPrefix(s.url, "http://")}
	err := Run(t.Context(), cfg, Drivers{}, quiet())
	if err == nil || !strings.Contains(err.Error(), "in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func TestBrokerEndToEnd(t *testing.T) {
	s := run(t, nil)
	conn, _, err := websocket.Dial(t.Context(), s.url+"/broker?topic=foo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	s.expect(200, "", "POST", "/broker?topic=foo", "", "Hello World!", "Timestamp", "1499951537")
	_, frame, err := conn.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Header map[string]string
		Body   []byte
	}
	if err := json.Unmarshal(frame, &m); err != nil || string(m.Body) != "Hello World!" || m.Header["Timestamp"] != "1499951537" {
		t.Errorf("got %s", frame)
	}
	s.refused(400, "topic", "POST", "/broker", "", "x")
	s.refused(413, "", "POST", "/broker?topic=foo", "", strings.Repeat("x", 1<<20+1))
	s.refused(405, "", "PUT", "/broker?topic=foo", "", "x")
	ended := make(chan error, 1)
	go func() { _, _, err := conn.Read(t.Context()); ended <- err }()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("closed with %v, want 1001", err)
	}
}
