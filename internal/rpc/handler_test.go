package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
)

func TestServe(t *testing.T) {
	addr, seen := greeter(t)
	h := newHandler(t, table{"go.micro.srv.greeter": {nodeAt(t, addr, nil)}})
	for _, tt := range []struct{ target, contentType, body, answerType, answer string }{
		{"/greeter/say/hello", "application/json", `{"name": "John"}`, "application/json", `{"text":"Hello"}`},
		{"/greeter/say/hello?x", "", "", "application/json", `{"text":"Hello"}`},
		{"/greeter/say/hello", "Application/JSON; charset=utf-8", `{}`, "application/json", `{"text":"Hello"}`},
		{"/greeter/say/hello", "application/protobuf", "x", "application/protobuf", "pb"},
		{"/greeter/say/hello", "application/x-protobuf; a=b", "x", "application/x-protobuf", "pb"},
		{"/greeter/say/hello", "application/proto", "x", "application/proto", "pb"},
	} {
		w := &recorder{}
		err := h.Serve(t.Context(), request("POST", tt.target, tt.contentType, tt.body), w)
		if err != nil || w.status != 200 || w.body.String() != tt.answer || w.length != int64(len(tt.answer)) {
			t.Errorf("%s %s: %d %q %d, %v", tt.target, tt.contentType, w.status, w.body.String(), w.length, err)
		}
		if len(w.header) != 2 || w.header.Get("Content-Type") != tt.answerType || !w.header.Has("Date") { // nothing of the node's
			t.Errorf("%s: header %v", tt.contentType, w.header)
		}
	}
	if got := seen.bodies[0]; got != `{"method":"Say.Hello","params":[{"name":"John"}],"id":0}` {
		t.Errorf("the node got %s", got)
	}
	if got := seen.bodies[3]; got != "\x00\x00\x00\x0b\x0a\x09Say.Hello\x00\x00\x00\x01x" {
		t.Errorf("the node got %q", got)
	}
}

func TestServeRefuses(t *testing.T) {
	addr, seen := greeter(t)
	h := newHandler(t, table{"go.micro.srv.greeter": {nodeAt(t, addr, nil)}})
	const path = "/greeter/say/hello"
	timeout := func(v string) *httpmsg.Request {
		r := request("POST", path, "", "{}")
		r.Header.Add("Timeout", v)
		return r
	}
	unknown := request("POST", path, "", strings.Repeat("x", 2000))
	unknown.Length = -1
	early := request("POST", path, "", "")
	early.Length, early.Body = 2000, unreadable{t}
	short := request("POST", path, "", "{}")
	short.Length = 3
	for name, tt := range map[string]struct {
		r      *httpmsg.Request
		status int
	}{
		"GET":                      {request("GET", path, "", ""), 405},
		"GET of an unknown":        {request("GET", "/nosuch/x", "", ""), 405},
		"unknown service":          {request("POST", "/nosuch/x", "", "{}"), 404},
		"no method":                {request("POST", "/greeter", "", "{}"), 404},
		"form":                     {request("POST", path, "application/x-www-form-urlencoded", "{}"), 415},
		"malformed JSON":           {request("POST", path, "", `{"a":`), 400},
		"body over the limit":      {request("POST", path, "", strings.Repeat("x", 2000)), 413},
		"chunked over the limit":   {unknown, 413},
		"announced over the limit": {early, 413},
		"body that breaks off":     {short, 400},
		"timeout without unit":     {timeout("soon"), 400},
		"timeout 0":                {timeout("0"), 400},
		"negative timeout":         {timeout("-5s"), 400},
		"timeout too large":        {timeout("99999999999999999999"), 400},
	} {
		w := &recorder{}
		err := h.Serve(t.Context(), tt.r, w)
		if statusOf(err) != tt.status || w.status != 0 {
			t.Errorf("%s: %v, want %d", name, err, tt.status)
		}
		if strings.HasPrefix(name, "timeout") && !strings.Contains(err.Error(), "Timeout") {
			t.Errorf("%s: %q does not name the header", name, err)
		}
		if refusal := (*httpmsg.Error)(nil); tt.status == 405 && errors.As(err, &refusal) && refusal.Allow != "POST" {
			t.Errorf("%s: allows %q", name, refusal.Allow)
		}
	}
	if len(seen.bodies) != 0 {
		t.Errorf("a node was called with %q", seen.bodies)
	}
	for _, v := range []string{"500ms", "5000000000"} {
		if err := h.Serve(t.Context(), timeout(v), &recorder{}); err != nil {
			t.Errorf("timeout %s: %v", v, err)
		}
	}
	if err := h.Serve(t.Context(), timeout("1"), &recorder{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a timeout of a nanosecond: %v", err)
	}
}

type unreadable struct{ t *testing.T }

func (u unreadable) Read([]byte) (int, error) {
	u.t.Error("a body over the limit was read")
	return 0, io.EOF
}

func TestServeErrorsOfTheService(t *testing.T) {
	addr := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", transport.JSON)
		_, _ = io.WriteString(w, `{"error":"{\"id\":\"x\",\"code\":409,\"detail\":\"taken\",\"status\":\"Conflict\"}"}`)
	})
	h := newHandler(t, table{"go.micro.srv.greeter": {nodeAt(t, addr, nil)}})
	err := h.Serve(t.Context(), request("POST", "/greeter/say/hello", "", ""), &recorder{})
	var got *transport.ServiceError
	if !errors.As(err, &got) || *got != (transport.ServiceError{ID: "x", Code: 409, Detail: "taken", Status: "Conflict"}) {
		t.Errorf("%v", err)
	}
}

// passed notes what the proxy was given.
type passed struct{ targets []string }

func (p *passed) Serve(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	p.targets = append(p.targets, r.Method+" "+r.Target)
	return nil
}

func TestServePlainHTTP(t *testing.T) {
	addr, _ := greeter(t)
	plain := nodeAt(t, addr, map[string]string{"protocol": "http"})
	h := newHandler(t, table{
		"go.micro.srv.web": {plain}, "go.micro.srv.web.sub": {nodeAt(t, addr, nil)}, "go.micro.srv.empty": {},
	})
	p := &passed{}
	h.Proxy = p
	for _, r := range []*httpmsg.Request{
		request("POST", "/web/x", "text/plain", "x"), request("GET", "/web", "", ""), request("DELETE", "/web/a/b/c/d?q", "", ""),
	} {
		before := len(p.targets)
		if err := h.Serve(t.Context(), r, &recorder{}); err != nil || len(p.targets) != before+1 {
			t.Errorf("%s %s: %v, passed on %v", r.Method, r.Target, err, p.targets)
		}
	}
	for target, want := range map[string]int{"/web/sub/say/hello": 0, "/empty/x": 503, "/nosuch/x": 404} {
		before := len(p.targets)
		if err := h.Serve(t.Context(), request("POST", target, "", "{}"), &recorder{}); statusOf(err) != want || len(p.targets) != before {
			t.Errorf("%s: %v, passed on %v", target, err, p.targets[before:])
		}
	}
}

func BenchmarkServe(b *testing.B) {
	addr, _ := greeter(b)
	h := newHandler(b, table{"go.micro.srv.greeter": {nodeAt(b, addr, nil)}})
	b.ReportAllocs()
	for b.Loop() {
		if err := h.Serve(b.Context(), request("POST", "/greeter/say/hello", "", `{"name":"John"}`), &recorder{}); err != nil {
			b.Fatal(err)
		}
	}
}
