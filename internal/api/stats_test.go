package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry/memory"
)

func TestFormsOfStats(t *testing.T) {
	for _, tt := range []struct{ contentType, accept, want string }{
		{"", "", pageType},
		{"", "*/*", pageType},
		{"", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", pageType},
		{"", "application/json", jsonType},
		{"", "application/json, text/plain, */*", jsonType},
		{"", "Application/JSON; q=0.5", jsonType},
		{"", "text/html;q=0.3, application/json;q=0.8", jsonType},
		{"", "application/json;q=0.3, text/html", pageType},
		{"", "application/json;q=0", pageType},
		{"", "application/json;q=nonsense", pageType},
		{"", "text/event-stream", eventsType},
		{"application/json", "", jsonType},
		{"application/json; charset=utf-8", "text/html", jsonType},
		{"text/plain", "", pageType},
	} {
		h := http.Header{}
		if tt.contentType != "" {
			h.Set("Content-Type", tt.contentType)
		}
		if tt.accept != "" {
			h.Set("Accept", tt.accept)
		}
		if got := statsForm(h); got != tt.want {
			t.Errorf("Content-Type %q, Accept %q: %s, want %s", tt.contentType, tt.accept, got, tt.want)
		}
	}
}

func TestStatsAreJSON(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Page = answers("a page")
	a.Monitor.Stats.Count(200)
	r := httptest.NewRequest(http.MethodGet, "/stats", nil)
	r.Header.Set("Accept", "application/json")
	w := asked(t, a, r)
	if !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json" || !strings.Contains(w.Body.String(), `"total_reqs":1`) {
		t.Errorf("answer %s of type %q", w.Body, w.Header().Get("Content-Type"))
	}
}

// The stream tells what is, and tells it again when something is new; it ends
// when the sidecar stops.
func TestStatsAreStreamed(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Page = answers("a page")
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); a.Monitor.Run(ctx) }()
	defer func() { cancel(); <-ran }()
	server := httptest.NewServer(a.Own("/stats"))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/stats", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func() (now time.Time, more bool) {
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var o struct {
				Now   time.Time
				Spans map[string]struct{ P50 []float64 }
			}
			if err := json.Unmarshal([]byte(data), &o); err != nil || len(o.Spans["2m"].P50) != 60 {
				t.Errorf("%v: %s", err, data)
			}
			return o.Now, true
		}
		return now, false
	}
	first, _ := next()
	second, more := next()
	if !more || !second.After(first) {
		t.Errorf("events of %v and %v", first, second)
	}
	stop, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	if err := a.Stop(stop); err != nil {
		t.Errorf("a viewer holds up the stop: %v", err)
	}
	for more {
		_, more = next()
	}
	if lines.Err() != nil {
		t.Errorf("the stream ended with %v", lines.Err())
	}
}

func TestViewersAreBounded(t *testing.T) {
	a := newAPI(t, memory.New())
	a.Page = answers("a page")
	a.viewers.Store(maxViewers)
	r := httptest.NewRequest(http.MethodGet, "/stats", nil)
	r.Header.Set("Accept", "text/event-stream")
	if w := asked(t, a, r); w.Code != http.StatusTooManyRequests {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if a.viewers.Load() != maxViewers {
		t.Error("a viewer that was refused is counted")
	}
}
