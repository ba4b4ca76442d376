//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// answer is what came back; status 0 and the error as the body without one.
type answer struct {
	status int
	body   string
	header http.Header
	took   time.Duration
}

// ask sends a request on a connection of its own. header holds names and
// values in turn.
func (s *sidecar) ask(method, path, body string, header ...string) answer {
	s.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	return s.askOver(transport, method, path, body, header...)
}

func (s *sidecar) askOver(transport http.RoundTripper, method, path, body string, header ...string) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return answer{}
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	begun := time.Now()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return answer{body: err.Error(), took: time.Since(begun)}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{body: err.Error(), took: time.Since(begun)}
	}
	return answer{resp.StatusCode, string(text), resp.Header, time.Since(begun)}
}

func (s *sidecar) get(path string) answer { s.t.Helper(); return s.ask("GET", path, "") }

const (
	contentType = "Content-Type"
	jsonType    = "application/json"
)

func (s *sidecar) post(path, body string) answer {
	s.t.Helper()
	return s.ask("POST", path, body, contentType, jsonType)
}

// is requires a status and a body: JSON is compared by value, if want is JSON.
func (a answer) is(t *testing.T, status int, want string) {
	t.Helper()
	if a.status != status || a.body != want && !sameJSON(a.body, want) {
		t.Errorf("got %d %q, want %d %q", a.status, a.body, status, want)
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// refused requires an error of the sidecar's own in go-micro's form, with part
// in its detail.
func (a answer) refused(t *testing.T, status int, part string) {
	t.Helper()
	var e struct {
		ID, Detail, Status string
		Code               int
	}
	err := json.Unmarshal([]byte(a.body), &e)
	if a.status != status || err != nil || e.ID != "go.micro.sidecar" || e.Code != status ||
		e.Status != http.StatusText(status) || !strings.Contains(e.Detail, part) || a.header.Get(contentType) != jsonType {
		t.Errorf("got %d %.300q (%s), want %d with %q", a.status, a.body, a.header.Get(contentType), status, part)
	}
}

// register puts a node into the registry; query is "" or "?ttl=…".
func (s *sidecar) register(query, service, id, address string) {
	s.t.Helper()
	body := fmt.Sprintf(`{"Name":%q,"Nodes":[{"Id":%q,"Address":%q}]}`, service, id, address)
	s.post("/registry"+query, body).is(s.t, 200, "")
}

// knows reports whether the registry answers the service.
func (s *sidecar) knows(service string) bool {
	s.t.Helper()
	return s.get("/registry?service="+service).status == 200
}

// load calls a path again and again until it is stopped.
type load struct {
	t    *testing.T
	stop context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	calls   int
	bad     []string
	longest time.Duration
}

// load calls from two clients at a rate that leaves the machine room. Every
// answer other than 200 is remembered.
func (s *sidecar) load(path, body string, header ...string) *load {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &load{t: s.t, stop: stop}
	s.t.Cleanup(func() { stop(); l.done.Wait() })
	for range 2 {
		l.done.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			tick := time.NewTicker(4 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				l.add(s.askOver(transport, "POST", path, body, header...))
				<-tick.C
			}
		})
	}
	return l
}

func (l *load) add(a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	l.longest = max(l.longest, a.took)
	if a.status != 200 {
		l.bad = append(l.bad, fmt.Sprintf("%d %.200s", a.status, a.body))
	}
}

// count returns how many calls have ended.
func (l *load) count() int { l.mu.Lock(); defer l.mu.Unlock(); return l.calls }

// clean stops the load and requires that no call failed.
func (l *load) clean(what string) {
	l.t.Helper()
	l.stop()
	l.done.Wait()
	if l.calls == 0 {
		l.t.Errorf("%s: no call was made", what)
	}
	if len(l.bad) > 0 {
		l.t.Errorf("%s: %d of %d calls failed, the first with %s", what, len(l.bad), l.calls, l.bad[0])
	}
	l.t.Logf("%s: %d calls, the longest %v", what, l.calls, l.longest.Round(time.Millisecond))
}
