package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/micro/sidecar/registry/registrytest"
)

// script is a server that says, word for word, what the API's documentation
// describes and a real one says too rarely for a test: pages, bookmarks, a
// past that is gone, events of errors, nonsense.
type script struct {
	t  *testing.T
	mu sync.Mutex
	// seen are the queries for endpoint slices.
	seen    []string
	answers []answer // to them, in turn; the last one is repeated
}

type answer struct {
	status int
	lines  []string
	hold   bool // the stream stays open
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if strings.HasSuffix(r.URL.Path, "/services") {
		if q.Get("watch") != "" {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		_, _ = w.Write([]byte(`{"metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a","namespace":"default"}}]}`)) // the client may be gone
		return
	}
	s.mu.Lock()
	what := "list"
	if q.Get("watch") != "" {
		what = "watch " + q.Get("resourceVersion")
		if q.Get("allowWatchBookmarks") != "true" || q.Get("timeoutSeconds") == "" {
			s.t.Errorf("watch: %s", r.URL.RawQuery)
		}
	} else if q.Get("limit") != "500" {
		s.t.Errorf("list: %s", r.URL.RawQuery)
	}
	if next := q.Get("continue"); next != "" {
		what += " " + next
	}
	s.seen = append(s.seen, what)
	a := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	w.WriteHeader(a.status)
	for _, line := range a.lines {
		_, _ = w.Write([]byte(line + "\n")) // the client may be gone
	}
	w.(http.Flusher).Flush()
	if a.hold {
		<-r.Context().Done()
	}
}

func (s *script) queries() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.seen, ", ")
}

// item is a slice of service a with one endpoint.
func item(name, version, address string) string {
	text, err := json.Marshal(obj{
		"metadata":    obj{"name": name, "namespace": "default", "resourceVersion": version, "labels": obj{"kubernetes.io/service-name": "a"}},
		"addressType": "IPv4", "ports": http8080, "endpoints": []obj{pod(name, address, true)},
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

func page(version, next string, items ...string) answer {
	return answer{status: 200, lines: []string{fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"continue":%q},"items":[%s]}`, version, next, strings.Join(items, ","))}}
}

func stream(hold bool, lines ...string) answer { return answer{status: 200, lines: lines, hold: hold} }

func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object)
}

const (
	gone     = `{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}`
	bookmark = `{"kind":"EndpointSlice","metadata":{"resourceVersion":"30"}}`
)

func TestProtocol(t *testing.T) {
	s := &script{t: t, answers: []answer{
		page("10", "more", item("p1", "9", "10.0.0.1")), {status: 410, lines: []string{gone}}, // the pages have expired
		page("11", "more", item("p1", "9", "10.0.0.1")), page("11", "", item("p2", "9", "10.0.0.2")),
		stream(false, event("ADDED", item("p3", "20", "10.0.0.3")), event("DELETED", item("p1", "21", "10.0.0.1")), event("BOOKMARK", bookmark)),
		stream(false, event("MODIFIED", item("p3", "31", "10.0.0.33")), event("ERROR", gone)),
		page("40", "", item("p4", "40", "10.0.0.4")),
		{status: 500, lines: []string{"not JSON"}},
		stream(false, event("ADDED", item("p5", "41", "10.0.0.5")), "{nonsense"),
		stream(false, event("ADDED", "null")),
		{status: 410, lines: []string{gone}},
		page("50", "", item("p6", "50", "10.0.0.6")),
		stream(true, event("ADDED", item("p7", "51", "10.0.0.7"))),
	}}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	r := open(t, server.URL)
	e := watch(t, r)
	await(t, r, "a", ": p6=10.0.0.6:8080map[] p7=10.0.0.7:8080map[]")
	const want = "list, list more, list, list more, watch 11, watch 30, list, watch 40, watch 40, watch 41, watch 41, list, watch 50"
	if have := s.queries(); have != want {
		t.Errorf("asked:\n have %s\n want %s", have, want)
	}
	if have := e.of("a"); len(have) == 0 || have[len(have)-1] != "a: p6=10.0.0.6:8080map[] p7=10.0.0.7:8080map[]" {
		registrytest.Eventually(t, func() string {
			if have := e.of("a"); len(have) == 0 || have[len(have)-1] != "a: p6=10.0.0.6:8080map[] p7=10.0.0.7:8080map[]" {
				return fmt.Sprintf("events: %q", have)
			}
			return ""
		})
	}
}
