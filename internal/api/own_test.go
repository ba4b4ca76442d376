package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/rpc"
	"github.com/micro/sidecar/registry/memory"
)

func TestOwnPathsAreExact(t *testing.T) {
	a := newAPI(t, memory.New())
	for path, want := range map[string]bool{
		"/registry": true, "/broker": true, "/health": true, "/livez": true, "/readyz": true, "/metrics": true,
		"/rpc": false, // the data plane's
		"/":    false, "": false, "/registry/": false, "/Registry": false, "/health/x": false, "/%72egistry": false,
		"/stats": false, // not enabled
	} {
		if got := a.Own(path) != nil; got != want {
			t.Errorf("%q: own %v, want %v", path, got, want)
		}
	}
	a.Page = answers("a page")
	if a.Own("/stats") == nil || a.Own("/stats/x") != nil {
		t.Error("with --enable_stats /stats, and no more, is the API's own")
	}
}

func TestTheGuardStandsBeforeEveryOwnPath(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Page = answers("a page")
	for _, path := range []string{"/registry", "/broker", "/health", "/livez", "/readyz", "/metrics", "/stats"} {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r = r.WithContext(httpmsg.WithLoopback(r.Context()))
		r.Host = "evil.example"
		if w := asked(t, a, r); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestOwnPathsAnswer(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Page = answers("a page")
	for _, test := range []struct {
		method, path string
		status       int
		body         string // part of it
	}{
		{"GET", "/livez", 200, "ok\n"},
		{"HEAD", "/livez", 200, ""},
		{"POST", "/livez", 405, "POST"},
		{"GET", "/readyz", 200, "ok\n"},
		{"DELETE", "/readyz", 405, "DELETE"},
		{"GET", "/health", 200, "ok\n"},
		{"PUT", "/health", 405, "PUT"},
		{"GET", "/broker", 200, "messaging"},
		{"GET", "/metrics", 200, "micro_build_info{go_version="},
		{"HEAD", "/metrics", 200, ""},
		{"POST", "/metrics", 405, "POST"},
		{"GET", "/stats", 200, "a page"},
		{"POST", "/stats", 405, "POST"},
	} {
		w := asked(t, a, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.body) {
			t.Errorf("%s %s: %d %s, want %d", test.method, test.path, w.Code, w.Body, test.status)
		}
		if w.Code == 405 && w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow: %q", test.method, test.path, w.Header().Get("Allow"))
		}
	}
}

func TestNotReady(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Ready = func(context.Context) error { return errors.New("registry consul: gone") }
	w := asked(t, a, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if w.Code != 503 || detail(t, w.Code, w.Body.Bytes()) != "registry consul: gone" {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}

func TestHealthIsTheApplications(t *testing.T) {
	for said, want := range map[string]int{
		"200 OK": 200, "404 Not Found": 404, "500 Oops": 500, "503 Later": 503, "302 Found": 302,
		// What cannot be passed on, be it no answer at all.
		"050 Odd": 503, "999 Odd": 503, "": 503,
	} {
		t.Run(said, func(t *testing.T) {
			app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, buffered, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				if said != "" {
					fmt.Fprintf(buffered, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n", said)
				}
				_ = buffered.Flush()
			}))
			defer app.Close()
			a := newAPI(t, memory.New())
			a.Health = health.New(health.Check{URL: app.URL, Timeout: 5 * time.Second}).Probe
			w := asked(t, a, httptest.NewRequest(http.MethodGet, "/health", nil))
			if w.Code != want {
				t.Fatalf("status %d, want %d", w.Code, want)
			}
			if want != 200 && !strings.HasPrefix(detail(t, w.Code, w.Body.Bytes()), "health check") {
				t.Errorf("answer %s", w.Body)
			}
		})
	}
}

func TestTheDataPlaneChoosesItsHandler(t *testing.T) {
	for _, test := range []struct {
		byDefault    bool // to the proxy
		method, path string
		way          string
		status       int
		body         string // part of it
	}{
		{false, "GET", "/foo/bar", "", 405, "a call is a POST"},
		{false, "GET", "/foo/bar", "proxy", 200, "proxied"},
		{true, "GET", "/foo/bar", "", 200, "proxied"},
		{true, "GET", "/foo/bar", "rpc", 405, "a call is a POST"},
		{true, "GET", "/foo/bar", "RPC", 400, `got \"RPC\"`},
		{true, "GET", "/rpc?x", "", 405, "a call is a POST"},
		{true, "GET", "/rpc", "proxy", 405, "a call is a POST"}, // a path of ours
		{true, "GET", "/rpc/", "", 200, "proxied"},
	} {
		a := newAPI(t, memory.New())
		a.ProxyByDefault = test.byDefault
		a.RPC = &rpc.Handler{Namespace: "go.micro.srv", Caller: &rpc.Caller{Resolver: a.Discovery, Timeout: 5 * time.Second}}
		r := &httpmsg.Request{Method: test.method, Target: test.path, Body: strings.NewReader("")}
		if test.way != "" {
			r.Header.Add("Micro-Handler", test.way)
		}
		var sent answer
		if err := a.Serve(t.Context(), r, &sent); err != nil {
			t.Fatal(err)
		}
		if sent.status != test.status || !strings.Contains(string(sent.body), test.body) {
			t.Errorf("%+v: %d %s", test, sent.status, sent.body)
		}
	}
}

func TestWhatIsProxiedIsNotGuarded(t *testing.T) {
	a := newAPI(t, memory.New())
	a.ProxyByDefault = true
	for target, want := range map[string]int{"/foo/bar": 200, "/rpc": 403} {
		var sent answer
		r := &httpmsg.Request{Method: "GET", Target: target, Host: "evil.example", Loopback: true}
		if err := a.Serve(t.Context(), r, &sent); err != nil || sent.status != want {
			t.Errorf("%s: %d %s, %v", target, sent.status, sent.body, err)
		}
	}
}
