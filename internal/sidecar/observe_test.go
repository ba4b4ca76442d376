package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/accesslog"
	"github.com/micro/sidecar/registry"
)

// headers is a node that remembers what it was asked with.
type headers struct {
	*httptest.Server
	mu   sync.Mutex
	last http.Header
}

func newHeaders(t *testing.T, s *running, service, protocol string) *headers {
	t.Helper()
	n := &headers{}
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		n.last = r.Header
		n.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":0,"result":{},"error":null}`)
	}))
	t.Cleanup(n.Close)
	node := registry.Node{ID: service + "-1", Address: n.Listener.Addr().String()}
	node.Address, node.Port = "127.0.0.1", portOf(t, n.URL)
	if protocol != "" {
		node.Metadata = map[string]string{"protocol": protocol}
	}
	if err := s.registry.Register(t.Context(), registry.Service{Name: service, Nodes: []registry.Node{node}}, 0); err != nil {
		t.Fatal(err)
	}
	return n
}

func portOf(t *testing.T, url string) (port int) {
	t.Helper()
	if _, err := fmt.Sscanf(url[strings.LastIndexByte(url, ':')+1:], "%d", &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func (n *headers) got() http.Header { n.mu.Lock(); defer n.mu.Unlock(); return n.last }

const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// What belongs to a trace goes on; a request gets an id when it has none and there
// is an access log.
func TestTracesGoOn(t *testing.T) {
	silent := run(t, nil)
	for service, protocol := range map[string]string{"call": "", "plain": "http"} {
		alone := newHeaders(t, silent, "go.micro.srv."+service, protocol)
		if silent.try("POST", "/"+service+"/say/hello", "application/json", "{}"); alone.got() == nil || alone.got().Get("X-Request-Id") != "" {
			t.Errorf("%s got a request id that nobody can look up", service)
		}
	}
	s := run(t, func(c *Config) {
		c.Observe.AccessLog = accesslog.Options{Path: filepath.Join(t.TempDir(), "access.log"), Format: accesslog.JSON}
	})
	call, plain := newHeaders(t, s, "go.micro.srv.call", ""), newHeaders(t, s, "go.micro.srv.plain", "http")
	for path, node := range map[string]*headers{"/call/say/hello": call, "/plain/say/hello": plain} {
		if status, body := s.try("POST", path, "application/json", "{}", "traceparent", trace, "tracestate", "a=b", "baggage", "c=d", "X-Request-Id", "mine"); status != 200 {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		for name, want := range map[string]string{"Traceparent": trace, "Tracestate": "a=b", "Baggage": "c=d", "X-Request-Id": "mine"} {
			if got := node.got().Values(name); len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		_, _, header := s.full("POST", path, "application/json", "{}")
		if header.Get("X-Request-Id") != "" {
			t.Errorf("%s: the answer has a request id", path)
		}
		for _, name := range []string{"Traceparent", "Tracestate", "Baggage"} {
			if node.got().Get(name) != "" {
				t.Errorf("%s: %s was invented", path, name)
			}
		}
	}
	ids := []string{call.got().Get("X-Request-Id"), plain.got().Get("X-Request-Id")}
	s.try("POST", "/rpc", "application/json", `{"service":"go.micro.srv.call","method":"Say.Hello","request":{}}`)
	ids = append(ids, call.got().Get("X-Request-Id"))
	form := regexp.MustCompile(`^[a-z2-7]{26}$`)
	for i, id := range ids {
		if !form.MatchString(id) || slices.Index(ids, id) != i {
			t.Errorf("request ids: %q", ids)
		}
	}
}

func TestAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	s := run(t, func(c *Config) { c.Observe.AccessLog = accesslog.Options{Path: path, Format: accesslog.JSON} })
	call, plain := newHeaders(t, s, "go.micro.srv.call", ""), newHeaders(t, s, "go.micro.srv.plain", "http")
	const secret = "geheim"
	s.try("POST", "/call/say/hello?token="+secret, "application/json", `{"password":"`+secret+`"}`,
		"Authorization", "Bearer "+secret, "Micro-Token", secret, "Cookie", secret, "traceparent", trace, "X-Request-Id", "mine", "User-Agent", "tester")
	s.try("GET", "/plain/x?key="+secret, "", "")
	s.refused(404, "", "POST", "/nosuch/x", "application/json", "{}")
	if err := s.end(); err != nil { // it is written at the end
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) {
		t.Errorf("a secret is in the log:\n%s", text)
	}
	type line struct {
		Time                                       time.Time
		Method, Path, Proto, Remote, Service, Node string
		Status                                     int
		Bytes                                      int64
		Took                                       float64 `json:"duration_ms"`
		ID                                         string  `json:"request_id"`
		Trace                                      string  `json:"trace_id"`
		Agent                                      string  `json:"user_agent"`
	}
	lines := map[string]line{}
	for text := range strings.Lines(string(text)) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines[l.Path] = l
	}
	called := lines["/call/say/hello"]
	if called.Status != 200 || called.Service != "go.micro.srv.call" || called.Node != call.Listener.Addr().String() || called.Bytes != 2 ||
		called.ID != "mine" || called.Trace != trace[3:35] || called.Agent != "tester" || called.Took <= 0 || called.Proto != "HTTP/1.1" || called.Time.IsZero() {
		t.Errorf("%+v", called)
	}
	if l := lines["/plain/x"]; l.Status != 200 || l.Service != "go.micro.srv.plain" || l.Node != plain.Listener.Addr().String() || l.Bytes == 0 || l.ID != plain.got().Get("X-Request-Id") {
		t.Errorf("%+v", l)
	}
	if l := lines["/nosuch/x"]; l.Status != 404 || l.Service != "" || l.Bytes == 0 {
		t.Errorf("%+v", l)
	}
	if l := lines["/readyz"]; l.Status != 200 || l.Method != "GET" || l.Bytes != 3 {
		t.Errorf("%+v", l)
	}
}

func TestAnAccessLogThatCannotBeIsToldAtTheStart(t *testing.T) {
	cfg := testConfig()
	cfg.Observe.AccessLog = accesslog.Options{Path: filepath.Join(t.TempDir(), "no", "access.log")}
	if err := Run(t.Context(), cfg, Drivers{}, quiet()); err == nil || !strings.Contains(err.Error(), "access log") {
		t.Errorf("it ended with %v", err)
	}
}

func TestAdmin(t *testing.T) {
	s := run(t, func(c *Config) { c.Observe.AdminAddress, c.EnableStats = "127.0.0.1:0", true })
	found := regexp.MustCompile(`admin_address="?([0-9.:]+)`).FindStringSubmatch(s.log.String())
	if found == nil {
		t.Fatalf("the log does not tell the address:\n%s", s.log)
	}
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"/livez":                         {200, "ok\n"},
		"/readyz":                        {200, "ok\n"},
		"/metrics":                       {200, "micro_build_info{"},
		"/debug/pprof/":                  {200, "goroutine"},
		"/debug/pprof/goroutine?debug=1": {200, "goroutine profile"},
		"/debug/pprof/cmdline":           {404, "not /debug/pprof/cmdline"},
		"/debug/pprofx":                  {404, "--admin_address"},
		"/stats":                         {404, "--admin_address serves"},
		"/registry":                      {404, "--admin_address serves"},
		"/health":                        {404, "--admin_address serves"},
		"/":                              {404, "--admin_address serves"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+found[1]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "whatever.example" // nobody is guarded against
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it is read
		if err != nil || resp.StatusCode != want.status || !strings.Contains(string(body), want.body) {
			t.Errorf("%s: %d %.200s, %v; want %d with %q", path, resp.StatusCode, body, err, want.status, want.body)
		}
		if want.status == 404 && resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: a refusal of type %s", path, resp.Header.Get("Content-Type"))
		}
	}
	if status, _ := s.try("GET", "/debug/pprof/", "", ""); status == 200 {
		t.Error("profiles are on the sidecar's own listener")
	}
	if _, body := s.try("GET", "/metrics", "", ""); !strings.Contains(body, "micro_answers_total") {
		t.Errorf("/metrics answers %.200s", body)
	}
}

// Names that nobody registered leave nothing behind.
func TestUnknownServicesAreNotRemembered(t *testing.T) {
	s := run(t, nil)
	newHeaders(t, s, "go.micro.srv.call", "")
	s.try("POST", "/call/say/hello", "application/json", "{}")
	for i := range 300 {
		s.refused(404, "", "POST", fmt.Sprintf("/nosuch%d/x", i), "application/json", "{}")
	}
	_, text := s.try("GET", "/metrics", "", "")
	if strings.Contains(text, "nosuch") || !strings.Contains(text, "micro_services_in_use 1\n") {
		t.Errorf("services that are not there have metrics:\n%.2000s", text)
	}
	for _, want := range []string{`micro_answers_total{class="4xx"} 300`, `micro_requests_total{class="2xx",protocol="rpc",service="go.micro.srv.call"} 1`} {
		if !strings.Contains(text, want) {
			t.Errorf("missing: %s", want)
		}
	}
}

// The statistics tell how the application is, and what its last probes saw.
func TestStatsTellOfTheApplication(t *testing.T) {
	var well sync.Map
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, ill := well.Load("ill"); ill {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(app.Close)
	s := run(t, func(c *Config) {
		c.EnableStats = true
		c.App = App{Name: "web", ID: "web-1", Address: app.Listener.Addr().String(), Host: "127.0.0.1", Port: portOf(t, app.URL)}
		c.Healthcheck = Healthcheck{URL: app.URL, Interval: 10 * time.Millisecond, Timeout: 5 * time.Second, Fall: 2, Rise: 1}
	})
	tells := func(healthy bool, status int) func() bool {
		return func() bool {
			_, body := s.try("GET", "/stats", "", "", "Accept", "application/json")
			var o struct {
				Applications []struct {
					Name, Node, Address          string
					Checked, Healthy, Registered bool
					Probes                       []struct {
						Status int
						Error  string
						Took   float64 `json:"took_ms"`
					}
				}
			}
			if err := json.Unmarshal([]byte(body), &o); err != nil || len(o.Applications) != 1 {
				t.Fatalf("%v: %s", err, body)
			}
			a := o.Applications[0]
			if len(a.Probes) == 0 {
				return false
			}
			last := a.Probes[len(a.Probes)-1]
			return a.Name == "web" && a.Node == "web-1" && a.Address == app.Listener.Addr().String() && a.Checked && len(a.Probes) <= 20 &&
				a.Healthy == healthy && a.Registered == healthy && last.Status == status && (last.Error == "") == healthy && last.Took > 0
		}
	}
	eventually(t, "it is told as healthy", tells(true, 200))
	well.Store("ill", true)
	eventually(t, "it is told as not healthy", tells(false, 503))
}
