package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry/memory"
)

func TestParseTTL(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": 0, "?service=x": 0,
		"?ttl=10s": 10 * time.Second, "?ttl=1h30m": 90 * time.Minute, "?ttl=5ns": 5, "?ttl=1.5ms": 1500 * time.Microsecond,
		"?ttl=2us": 2 * time.Microsecond, "?ttl=1s&ttl=2s": time.Second,
	} {
		got, err := parseTTL(httptest.NewRequest(http.MethodPost, "/registry"+query, nil))
		if err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", query, got, err, want)
		}
	}
	for _, query := range []string{"?ttl=", "?ttl", "?ttl=10", "?ttl=0s", "?ttl=-1s", "?ttl=1d", "?ttl=1e9s", "?ttl=9999999h", "?ttl=x"} {
		ttl, err := parseTTL(httptest.NewRequest(http.MethodPost, "/registry"+query, nil))
		refusal, ok := errors.AsType[*httpmsg.Error](err)
		if !ok || refusal.Status != http.StatusBadRequest || !strings.HasPrefix(refusal.Detail, "ttl: ") {
			t.Errorf("%q: %v, %v, want a 400", query, ttl, err)
		}
	}
}

const foo = `{"Name":"foo","Version":"1","Nodes":[{"Id":"foo-1","Address":"127.0.0.1:9091"}]}`

func TestRegistry(t *testing.T) {
	a := newAPI(t, memory.New())
	for _, step := range []struct {
		method, target, body string
		status               int
		answer               string
	}{
		{"GET", "/registry", "", 200, `[]`},
		{"POST", "/registry?ttl=1h", foo, 200, ""},
		{"POST", "/registry", strings.NewReplacer("foo", "bar", "9091", "9092").Replace(foo), 200, ""},
		{"GET", "/registry", "", 200, `[{"name":"bar"},{"name":"foo"}]`},
		{"GET", "/registry?service=", "", 200, `[{"name":"bar"},{"name":"foo"}]`},
		{"GET", "/registry?service=foo", "", 200, `{"name":"foo","version":"1","metadata":{},"endpoints":[],"nodes":[{"id":"foo-1","address":"127.0.0.1","port":9091,"metadata":{}}]}`},
		{"GET", "/registry?service=foo&versions=true", "", 200, `[{"name":"foo","version":"1","metadata":{},"endpoints":[],"nodes":[{"id":"foo-1","address":"127.0.0.1","port":9091,"metadata":{}}]}]`},
		{"HEAD", "/registry?service=foo", "", 200, "*"},
		{"DELETE", "/registry", foo, 200, ""},
		{"DELETE", "/registry", foo, 200, ""},
		{"GET", "/registry", "", 200, `[{"name":"bar"}]`},
	} {
		w := asked(t, a, httptest.NewRequest(step.method, step.target, strings.NewReader(step.body)))
		if w.Code != step.status || step.answer != "*" && w.Body.String() != step.answer {
			t.Errorf("%s %s: %d %s, want %d %s", step.method, step.target, w.Code, w.Body, step.status, step.answer)
		}
	}
}

func TestRegistryRefuses(t *testing.T) {
	a := newAPI(t, memory.New())
	for _, test := range []struct {
		method, target, body string
		status               int
		names                string
	}{
		{"PUT", "/registry", foo, 405, "PUT"},
		{"POST", "/registry", "{", 400, "JSON"},
		{"POST", "/registry", `{"Name":"foo"}`, 400, "Nodes"},
		{"DELETE", "/registry", "", 400, "body"},
		{"POST", "/registry?ttl=10", foo, 400, "ttl"},
		{"POST", "/registry", strings.Repeat(" ", 2<<10), 413, "1024"},
		{"DELETE", "/registry", strings.Repeat(" ", 2<<10), 413, "1024"},
		{"GET", "/registry?service=nosuch", "", 404, "nosuch"},
		{"GET", "/registry?service=foo&versions=yes", "", 400, "versions"},
	} {
		w := asked(t, a, httptest.NewRequest(test.method, test.target, strings.NewReader(test.body)))
		if said := detail(t, w.Code, w.Body.Bytes()); w.Code != test.status || !strings.Contains(said, test.names) {
			t.Errorf("%s %s %.20q: %d %s, want %d naming %s", test.method, test.target, test.body, w.Code, said, test.status, test.names)
		}
		if w.Code == 405 && w.Header().Get("Allow") != "GET, HEAD, POST, DELETE" {
			t.Errorf("Allow: %q", w.Header().Get("Allow"))
		}
	}
}

// A body that is announced too large is not waited for; one without a length is
// read as far as it may go.
func TestABodyThatIsTooLarge(t *testing.T) {
	a := newAPI(t, memory.New())
	announced := httptest.NewRequest(http.MethodPost, "/registry", iotest.ErrReader(errors.New("it was read")))
	announced.ContentLength = 1 << 30
	streamed := httptest.NewRequest(http.MethodPost, "/registry", strings.NewReader(strings.Repeat(" ", 2<<10)))
	streamed.ContentLength = -1
	for _, r := range []*http.Request{announced, streamed} {
		if w := asked(t, a, r); w.Code != 413 {
			t.Errorf("a body of length %d: %d %s, want 413", r.ContentLength, w.Code, w.Body)
		}
	}
}

func TestAnEngineThatIsAwayIs503(t *testing.T) {
	reg := memory.New()
	a := newAPI(t, reg)
	reg.Break(errors.New("gone"))
	for _, test := range []struct{ method, target, body string }{
		{"GET", "/registry", ""}, {"GET", "/registry?service=foo", ""}, {"POST", "/registry", foo}, {"DELETE", "/registry", foo},
	} {
		w := asked(t, a, httptest.NewRequest(test.method, test.target, strings.NewReader(test.body)))
		if said := detail(t, w.Code, w.Body.Bytes()); w.Code != 503 || !strings.Contains(said, "gone") {
			t.Errorf("%s %s: %d %s", test.method, test.target, w.Code, said)
		}
	}
}
