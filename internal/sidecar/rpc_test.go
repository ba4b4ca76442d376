package sidecar

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestCallByPathAndByRPC(t *testing.T) {
	s := run(t, nil)
	n := node(t, "n1")
	s.register("go.micro.srv.example", "n1", n, "")
	want := `{"node":"n1","method":"Example.Call","got":{"name":"John"}}`
	const js = "application/json"
	s.expect(200, want, "POST", "/example/call", js, `{"name": "John"}`)
	s.expect(200, want, "POST", "/example/call", js+"; charset=utf-8", `{"name": "John"}`)
	form := url.Values{"service": {"go.micro.srv.example"}, "method": {"Example.Call"}, "request": {`{"name": "John"}`}}
	s.expect(200, want, "POST", "/rpc", "application/x-www-form-urlencoded", form.Encode())
	s.expect(200, want, "POST", "/rpc", js, `{"service":"go.micro.srv.example","method":"Example.Call","request":{"name": "John"}}`)
	s.expect(200, want, "POST", "/rpc", js, `{"service":"go.micro.srv.example","method":"Example.Call","request":"{\"name\": \"John\"}"}`)
	s.expect(200, want, "POST", "/rpc", js, `{"service":"other","method":"Example.Call","request":{"name": "John"},"address":"`+n.Listener.Addr().String()+`"}`)

	_, _, h := s.full("POST", "/example/call", js, `{}`)
	if h.Get("X-Node-Secret") != "" || h.Get("Content-Type") != js {
		t.Errorf("the node's header reached the client: %v", h)
	}
}

func TestPathMapping(t *testing.T) {
	s := run(t, nil)
	n := node(t, "n")
	for _, c := range []struct{ path, service, method string }{
		{"/foo/bar", "foo", "Foo.Bar"},
		{"/foo/bar/baz", "foo", "Bar.Baz"},
		{"/foo/bar/baz/cat", "foo.bar", "Baz.Cat"},
		{"/foo/bar/baz/cat/car", "foo.bar.baz", "Cat.Car"},
		{"/v1/foo/bar", "v1.foo", "Foo.Bar"},
		{"/v1/foo/bar/baz", "v1.foo", "Bar.Baz"},
		{"/v2/foo/bar/baz/cat", "v2.foo.bar", "Baz.Cat"},
		{"/foo/bar/baz-xyz", "foo", "Bar.BazXyz"},
	} {
		s.register("go.micro.srv."+c.service, "n", n, "")
		s.expect(200, fmt.Sprintf(`{"node":"n","method":%q,"got":{}}`, c.method), "POST", c.path, "application/json", `{}`)
	}
}

func TestCallRefuses(t *testing.T) {
	s := run(t, func(c *Config) { c.MaxBodySize = 2048; c.RequestTimeout = 3 * time.Second })
	s.register("go.micro.srv.foo", "n", node(t, "n"), "")
	closed := httptest.NewServer(nil)
	s.register("go.micro.srv.dead", "n", closed, "")
	closed.Close()
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees the client go only then
		<-r.Context().Done()
	}))
	defer slow.Close()
	s.register("go.micro.srv.slow", "n", slow, "")
	odd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "what?") }))
	defer odd.Close()
	s.register("go.micro.srv.odd", "n", odd, "")

	const js = "application/json"
	for _, c := range []struct {
		status                    int
		part                      string
		method, path, ctype, body string
		headerName, headerValue   string
	}{
		{404, "go.micro.srv.nosuch not found", "POST", "/nosuch/x", js, `{}`, "", ""},
		{404, "", "POST", "/", js, `{}`, "", ""},
		{404, "", "POST", "/foo", js, `{}`, "", ""},
		{405, "GET", "GET", "/foo/bar", "", "", "", ""},
		{415, "text/html", "POST", "/foo/bar", "text/html", "<p>", "", ""},
		{415, "", "POST", "/foo/bar", "application/x-www-form-urlencoded", "a=b", "", ""},
		{400, "JSON", "POST", "/foo/bar", js, `{"a":`, "", ""},
		{400, "Timeout", "POST", "/foo/bar", js, `{}`, "Timeout", "soon"},
		{413, "2048", "POST", "/foo/bar", js, `"` + strings.Repeat("x", 4096) + `"`, "", ""},
		{502, "", "POST", "/dead/x", js, `{}`, "", ""},
		{502, "", "POST", "/odd/x", js, `{}`, "", ""},
		{504, "", "POST", "/slow/x", js, `{}`, "", ""},
		{504, "", "POST", "/slow/x", js, `{}`, "Timeout", "50ms"},
		{400, "service", "POST", "/rpc", js, `{"method":"A.B"}`, "", ""},
		{400, "method", "POST", "/rpc", js, `{"service":"a"}`, "", ""},
		{400, "", "POST", "/rpc", js, `{"service":`, "", ""},
		{405, "", "GET", "/rpc", "", "", "", ""},
		{400, "Micro-Handler", "POST", "/foo/bar", js, `{}`, "Micro-Handler", "magic"},
	} {
		if c.headerName == "" {
			c.headerName, c.headerValue = "X-Nothing", "x"
		}
		s.refused(c.status, c.part, c.method, c.path, c.ctype, c.body, c.headerName, c.headerValue)
	}
}

func TestServiceWithoutUsableNodeIs503(t *testing.T) {
	s := run(t, nil)
	s.register("go.micro.srv.foo", "n", node(t, "n"), "")
	s.expect(200, "", "POST", "/foo/bar", "application/json", `{}`)
	s.expect(200, "", "GET", "/registry", "", "")
	s.registry.Break(errEngine)
	s.expect(200, "", "POST", "/foo/bar", "application/json", `{}`) // known: stale beats empty
	s.refused(503, "registry", "POST", "/other/bar", "application/json", `{}`)
	s.refused(503, "engine is away", "GET", "/readyz", "", "")
	s.expect(200, `[{"name":"go.micro.srv.foo"}]`, "GET", "/registry", "", "")
	s.expect(200, "", "GET", "/registry?service=go.micro.srv.foo", "", "")
	s.refused(503, "engine is away", "GET", "/registry?service=other", "", "")
	s.registry.Break(nil)
	s.expect(200, "ok\n", "GET", "/readyz", "", "")
}

func TestDeadNodeIsPassedOver(t *testing.T) {
	s := run(t, nil)
	s.register("go.micro.srv.foo", "live", node(t, "live"), "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := &httptest.Server{Listener: l}
	s.register("go.micro.srv.foo", "dead", dead, "")
	l.Close()
	for range 40 {
		s.expect(200, "", "POST", "/foo/bar", "application/json", `{}`)
		s.expect(200, "", "GET", "/foo/", "", "", "Micro-Handler", "proxy")
	}
}

func TestServiceErrorsPassThrough(t *testing.T) {
	s := run(t, nil)
	answer := ""
	n := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, answer)
	}))
	defer n.Close()
	s.register("go.micro.srv.foo", "n", n, "")
	for _, c := range []struct {
		answer string
		status int
		body   string
	}{
		{`{"id":0,"result":{},"error":"{\"id\":\"foo\",\"code\":403,\"detail\":\"no\",\"status\":\"Forbidden\"}"}`, 403, `{"id":"foo","code":403,"detail":"no","status":"Forbidden"}`},
		{`{"id":"0","result":null,"error":{"id":"foo","code":429,"detail":"slow down","status":"Too Many Requests"}}`, 429, `{"id":"foo","code":429,"detail":"slow down","status":"Too Many Requests"}`},
		{`{"id":0,"result":{},"error":""}`, 200, `{}`},
	} {
		answer = c.answer
		s.expect(c.status, c.body, "POST", "/foo/bar", "application/json", `{}`)
	}
	answer = `{"id":0,"result":null,"error":"it broke"}`
	if status, body := s.try("POST", "/foo/bar", "application/json", `{}`); status != 500 || !strings.Contains(body, `"detail":"it broke"`) {
		t.Errorf("an error without a code: %d %s", status, body)
	}
}
