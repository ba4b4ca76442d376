package sidecar

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A request is answered alike on each way in: the fast path; net/http, after a
// request for an own path on the same connection; HTTP/2. The sidecar's own
// answers have a date, nodes' answers what the node said. What is expected
// beyond "100-continue" is the node's affair (RFC 9110 section 10.1.1).
func TestDatesAndExpectationsOnEachWayIn(t *testing.T) {
	l := listenAll(t, false)
	l.register("go.micro.srv.bar", "b", node(t, "b"), "")
	for _, way := range []struct {
		name  string
		first string // asked for before, on the same connection
		two   bool
	}{{"fast path", "", false}, {"net/http", "/livez", false}, {"HTTP/2", "", true}} {
		for _, tt := range []struct {
			method, path, handler string
			status                int
			own                   bool
		}{
			{"POST", "/bar/say/hello", "rpc", 200, true},
			{"POST", "/nosuch/say/hello", "rpc", 404, true},
			{"GET", "/nosuch/x", "proxy", 404, true},
			{"GET", "/foo/x", "proxy", 200, false},
			{"GET", "/livez", "", 200, true},
		} {
			client, base := l.client(t, false, way.two)
			if way.first != "" {
				resp, err := client.Get(base + way.first)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil { // so that the connection is used again
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			req, err := http.NewRequest(tt.method, base+tt.path, strings.NewReader(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Content-Type": {"application/json"}, "Micro-Handler": {tt.handler}, "Expect": {"a-miracle"}}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != tt.status {
				t.Errorf("%s: %s %s: status %d, want %d", way.name, tt.method, tt.path, resp.StatusCode, tt.status)
			}
			dates := resp.Header.Values("Date")
			if !tt.own {
				if got := <-l.seen; !strings.Contains(got, "\r\nExpect: a-miracle\r\n") || len(dates) > 0 {
					t.Errorf("%s: the node got %q; the answer's dates are %q", way.name, got, dates)
				}
				continue
			}
			if len(dates) != 1 {
				t.Errorf("%s: %s %s: dates %q", way.name, tt.method, tt.path, dates)
			} else if at, err := http.ParseTime(dates[0]); err != nil || time.Since(at) > time.Minute || time.Until(at) > time.Minute {
				t.Errorf("%s: %s %s: date %q, %v", way.name, tt.method, tt.path, dates[0], err)
			}
		}
	}
}
