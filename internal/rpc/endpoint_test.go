package rpc

import (
	"strings"
	"testing"
)

const form = "application/x-www-form-urlencoded"

func TestServeRPC(t *testing.T) {
	addr, seen := greeter(t)
	n := nodeAt(t, addr, nil)
	h := newHandler(t, table{"go.micro.srv.example": {n}})
	const want = `{"method":"Example.Call","params":[{"name":"John"}],"id":0}`
	for _, tt := range []struct{ target, contentType, body, want string }{
		{"/rpc", form, `service=go.micro.srv.example&method=Example.Call&request={"name": "John"}`, want},
		{"/rpc", form, `service=go.micro.srv.example&method=Example.Call&request=%7B%22name%22%3A%22John%22%7D&address=` + n.Addr, want},
		{"/rpc?service=go.micro.srv.example&method=Example.Call", "", "", strings.Replace(want, `{"name":"John"}`, "{}", 1)},
		{"/rpc", "application/json", `{"service":"go.micro.srv.example","method":"Example.Call","request":{"name": "John"}}`, want},
		{"/rpc", "", `{"Service":"go.micro.srv.example","Method":"Example.Call","Request":"{\"name\":\"John\"}"}`, want},
		{"/rpc", "application/json;charset=utf-8", `{"service":"go.micro.srv.example","method":"Example.Call"}`, strings.Replace(want, `{"name":"John"}`, "{}", 1)},
	} {
		w := &recorder{}
		r := request("POST", tt.target, tt.contentType, tt.body)
		r.Header.Add("X-Request-Id", "7")
		if err := h.ServeRPC(t.Context(), r, w); err != nil || w.status != 200 || w.body.String() != `{"text":"Hello"}` || w.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s, %v", tt.body, w.status, w.body.String(), err)
			continue
		}
		i := len(seen.bodies) - 1
		if seen.bodies[i] != tt.want || seen.headers[i].Get("X-Request-Id") != "7" || seen.headers[i].Get("Content-Type") != "application/json" {
			t.Errorf("%s: the node got %s with %v", tt.body, seen.bodies[i], seen.headers[i])
		}
	}
}

func TestServeRPCRefuses(t *testing.T) {
	addr, _ := greeter(t)
	h := newHandler(t, table{"s": {nodeAt(t, addr, nil)}})
	for _, tt := range []struct {
		method, contentType, body string
		status                    int
		names                     string
	}{
		{"GET", "", "", 405, "GET"},
		{"POST", "multipart/form-data; boundary=x", "", 415, "multipart"},
		{"POST", "text/plain", "{}", 415, "text/plain"},
		{"POST", form, "method=m&request={}", 400, "service"},
		{"POST", form, "service=s&request={}", 400, "method"},
		{"POST", form, "service=s&method=m&request={", 400, "request"},
		{"POST", form, "service=%zz", 400, "form"},
		{"POST", "", "", 400, "service"},
		{"POST", "application/json", `{"service":"s"}`, 400, "method"},
		{"POST", "application/json", `{"service":7,"method":"m"}`, 400, "service"},
		{"POST", "application/json", `{"service":"s","method":"m","request":"{"}`, 400, "request"},
		{"POST", "application/json", `[]`, 400, "a JSON array: an object"},
		{"POST", "application/json", `"x"`, 400, "a JSON string: an object"},
		{"POST", "application/json", `{"service":`, 400, "JSON"},
		{"POST", "application/json", strings.Repeat("x", 2000), 413, "1024"},
		{"POST", form, "service=nosuch&method=m", 404, "nosuch"},
		{"POST", form, "service=s&method=m&address=127.0.0.1:1", 403, "127.0.0.1:1"},
		{"POST", form, "service=s&method=m&address=x", 400, "address"},
	} {
		w := &recorder{}
		err := h.ServeRPC(t.Context(), request(tt.method, "/rpc", tt.contentType, tt.body), w)
		if statusOf(err) != tt.status || !strings.Contains(err.Error(), tt.names) || w.status != 0 {
			t.Errorf("%s %q: %v, want %d naming %s", tt.contentType, tt.body, err, tt.status, tt.names)
		}
	}
	r := request("POST", "/rpc", form, "service=s&method=m")
	r.Header.Add("Timeout", "x")
	if err := h.ServeRPC(t.Context(), r, &recorder{}); statusOf(err) != 400 {
		t.Errorf("a bad timeout: %v", err)
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add(`{"service":"s","method":"m","request":{}}`, "")
	f.Add(`{"service":"s","method":"m","request":"{}"}`, "a=b")
	f.Add(`service=s&method=m&request={}`, "service=x")
	f.Add(`[]`, "%")
	f.Fuzz(func(t *testing.T, body, query string) {
		if e, err := parseJSON([]byte(body)); err == nil {
			check(t, e)
		}
		if e, err := parseForm(body, query); err == nil {
			check(t, e)
		}
	})
}

// check holds what every accepted envelope must be.
func check(t *testing.T, e envelope) {
	t.Helper()
	if err := checkRequest(e); err != nil {
		t.Errorf("%+v was accepted: %v", e, err)
	}
}
