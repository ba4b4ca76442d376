package transport

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

var (
	mucp       = map[string]string{"protocol": "mucp", "server": "mucp"}
	sayHello   = Call{Service: "go.micro.srv.greeter", Method: "Say.Hello", Body: []byte(`{"name": "John"}`)}
	timeoutNum = regexp.MustCompile(`Timeout: (\d+)\r\n`)
)

// TestRecordedRequest holds the request that the 2017 sidecar was recorded to
// send to a node without metadata, and a go-micro v5 client to one with.
func TestRecordedRequest(t *testing.T) {
	var body string
	w := startWire(t, func(_, b string) (string, bool) { body = b; return ok(JSON, `{"result":{},"error":null,"id":0}`), true })
	c := newClient(t, Options{})
	for _, tt := range []struct {
		metadata   map[string]string
		head, body string
	}{
		{nil, "POST / HTTP/1.1\r\nHost: ADDR\r\nAccept: application/json\r\nContent-Type: application/json\r\nTimeout: N\r\n" +
			"X-Micro-From-Service: go.micro.sidecar\r\nContent-Length: 56\r\n\r\n", `{"method":"Say.Hello","params":[{"name":"John"}],"id":0}`},
		{mucp, "POST / HTTP/1.1\r\nHost: ADDR\r\nAccept: application/json\r\nContent-Type: application/json\r\nTimeout: N\r\n" +
			"Micro-Service: go.micro.srv.greeter\r\nMicro-Method: Say.Hello\r\nMicro-Endpoint: Say.Hello\r\nMicro-Id: 0\r\nMicro-Stream: 1\r\nContent-Length: 15\r\n\r\n", `{"name":"John"}`},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if _, err := c.Call(ctx, node(t, w.addr, tt.metadata), sayHello); err != nil {
			t.Error(err)
		}
		cancel()
		head := w.last()
		ns := timeoutNum.FindStringSubmatch(head)
		if ns == nil || len(ns[1]) != len("4999999999") {
			t.Errorf("Timeout is not in nanoseconds: %q", head)
		}
		head = strings.Replace(timeoutNum.ReplaceAllString(head, "Timeout: N\r\n"), w.addr, "ADDR", 1)
		if head != tt.head || body != tt.body {
			t.Errorf("sent\n%s%s\nwant\n%s%s", head, body, tt.head, tt.body)
		}
	}
}

func TestJSONRPCAnswers(t *testing.T) {
	answer := ""
	w := startWire(t, func(string, string) (string, bool) { return answer, true })
	c := newClient(t, Options{MaxBody: 4096})
	n := node(t, w.addr, nil)
	for _, tt := range []struct{ name, answer, want string }{
		{"number id", ok(JSON, `{"id":0,"result":{"a": 1.50,"b":9007199254740993},"error":null}`), `{"a":1.50,"b":9007199254740993}`},
		{"string id", ok(JSON, `{"id":"0","result":[1, 2],"error":""}`), `[1,2]`},
		{"no id, a newline", ok(JSON, "{\"result\":\"x<y\"}\n"), `"x<y"`},
		{"charset", ok("application/json; charset=utf-8", `{"result":{}}`), `{}`},
		{"no content type", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":{}}", `{}`},
		{"null result", ok(JSON, `{"result":null,"error":null,"id":0}`), `null`},
		{"error false", ok(JSON, `{"result":1,"error":false}`), `1`},
		{"chunked", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"res\r\n8\r\nult\":{}}\r\n0\r\n\r\n", `{}`},
		{"version 2", ok(JSON, `{"jsonrpc":"2.0","result":{},"id":null}`), `{}`},
	} {
		answer = tt.answer
		if got, err := c.Call(t.Context(), n, sayHello); err != nil || string(got) != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
	const svc, internal = "go.micro.srv.greeter", "Internal Server Error"
	for _, tt := range []struct {
		name, answer string
		want         ServiceError
	}{
		{"text", ok(JSON, `{"id":0,"result":{},"error":"no such name"}`), ServiceError{svc, 500, "no such name", internal}},
		{"go-micro error in text", ok(JSON, `{"id":0,"result":null,"error":"{\"id\":\"x\",\"code\":404,\"detail\":\"gone\",\"status\":\"Not Found\"}"}`), ServiceError{"x", 404, "gone", "Not Found"}},
		{"go-micro error", ok(JSON, `{"error":{"id":"x","code":429,"detail":"slow","status":"s"}}`), ServiceError{"x", 429, "slow", "s"}},
		{"version 2 error", ok(JSON, `{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":0}`), ServiceError{svc, 500, "Method not found", internal}},
		{"code out of range", ok(JSON, `{"error":{"code":200,"detail":"well"}}`), ServiceError{svc, 500, "well", internal}},
		{"object without a text", ok(JSON, `{"error":{"x":1}}`), ServiceError{svc, 500, `{"x":1}`, internal}},
		{"number", ok(JSON, `{"error":7}`), ServiceError{svc, 500, `7`, internal}},
		{"status 500 and an envelope", status(500, JSON, `{"error":{"id":"x","code":409,"detail":"taken","status":"Conflict"}}`), ServiceError{"x", 409, "taken", "Conflict"}},
		{"status 404 and a go-micro error", status(404, JSON, `{"id":"x","code":404,"detail":"gone","status":"Not Found"}`), ServiceError{"x", 404, "gone", "Not Found"}},
	} {
		answer = tt.answer
		_, err := c.Call(t.Context(), n, sayHello)
		var got *ServiceError
		if !errors.As(err, &got) || *got != tt.want {
			t.Errorf("%s: %#v, want %+v", tt.name, err, tt.want)
		}
	}
	for name, bad := range map[string]string{
		"no JSON":            ok(JSON, "hello"),
		"empty":              ok(JSON, ""),
		"neither":            ok(JSON, `{"id":0}`),
		"a list":             ok(JSON, `[]`),
		"half":               "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"result\":",
		"half a chunk":       "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{\"result\":{}}",
		"no HTTP":            "220 mail.example.com ESMTP\r\n",
		"another type":       ok("text/html", `{"result":{}}`),
		"protobuf":           ok(Protobuf, `{"result":{}}`),
		"json-rpc":           ok("application/json-rpc", `{"result":{}}`),
		"status 404":         status(404, "text/plain", "404 page not found"),
		"status 500":         status(500, JSON, `{"message":"boom"}`),
		"redirect":           "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
		"switching":          "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
		"too large":          ok(JSON, `{"result":"`+strings.Repeat("x", 5000)+`"}`),
		"too large, chunked": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1400\r\n" + strings.Repeat("x", 0x1400) + "\r\n0\r\n\r\n",
		"two values":         ok(JSON, `{"result":{}}{"result":{}}`),
		"deep":               ok(JSON, `{"result":`+strings.Repeat("[", 3000)+`}`),
	} {
		half := strings.HasPrefix(name, "half") || name == "no HTTP" || name == "switching"
		w := startWire(t, func(string, string) (string, bool) { return bad, !half })
		got, err := c.Call(t.Context(), node(t, w.addr, nil), sayHello)
		if e := nodeError(err); e == nil || !e.Sent || e.Addr != w.addr {
			t.Errorf("%s: %s, %#v", name, got, err)
		}
	}
}

func TestEndlessAnswer(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + strings.Repeat(" ", 1<<20), true // and waits
	})
	c := newClient(t, Options{MaxBody: 64 << 10})
	if _, err := c.Call(t.Context(), node(t, w.addr, nil), sayHello); nodeError(err) == nil || !strings.Contains(err.Error(), "larger than 65536 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestRawAnswers(t *testing.T) {
	answer := ""
	w := startWire(t, func(string, string) (string, bool) { return answer, true })
	c := newClient(t, Options{})
	n := node(t, w.addr, mucp)
	withError := func(text string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMicro-Error: " + text + "\r\nContent-Length: 0\r\n\r\n"
	}
	answer = ok(JSON, "{ \"a\": [1] }\n")
	if got, err := c.Call(t.Context(), n, sayHello); err != nil || string(got) != `{"a":[1]}` {
		t.Errorf("%s, %v", got, err)
	}
	for _, tt := range []struct {
		answer string
		want   ServiceError
	}{
		{withError("plain text"), ServiceError{"go.micro.srv.greeter", 500, "plain text", "Internal Server Error"}},
		{withError(`{"id":"x","code":403,"detail":"not you","status":"Forbidden"}`), ServiceError{"x", 403, "not you", "Forbidden"}},
		{strings.Replace(withError(`{"id":"x","code":403,"detail":"d","status":"s"}`), "200 OK", "500 X", 1), ServiceError{"x", 403, "d", "s"}},
	} {
		answer = tt.answer
		_, err := c.Call(t.Context(), n, sayHello)
		var got *ServiceError
		if !errors.As(err, &got) || *got != tt.want {
			t.Errorf("%#v, want %+v", err, tt.want)
		}
	}
	for _, bad := range []string{ok(JSON, ""), ok(JSON, "nonsense"), ok("text/plain", "unsupported content type"), ok(Protobuf, "{}")} {
		answer = bad
		if got, err := c.Call(t.Context(), n, sayHello); nodeError(err) == nil {
			t.Errorf("%q: %s, %v", bad, got, err)
		}
	}
	answer = ok(Protobuf, "")
	if got, err := c.Call(t.Context(), n, Call{Service: "s", Method: "A.B", ContentType: "application/x-protobuf"}); err != nil || len(got) != 0 {
		t.Errorf("an empty message: %q, %v", got, err)
	}
	var refusal *httpmsg.Error
	if _, err := c.Call(t.Context(), n, Call{Service: "s", Method: "A.B\r\nX: y"}); !errors.As(err, &refusal) || refusal.Status != 400 {
		t.Errorf("a method with a line break: %v", err)
	}
}

func TestCallsThatCannotBeMade(t *testing.T) {
	c := newClient(t, Options{})
	dead := func(md map[string]string) *discovery.Node { return node(t, testserver.DeadAddr(t), md) }
	for _, tt := range []struct {
		metadata map[string]string
		call     Call
		status   int
	}{
		{map[string]string{"protocol": "grpc"}, Call{Service: "s", Method: "A.B", Body: []byte(`{`)}, 400},
		{map[string]string{"server": "grpc"}, Call{Service: "s", Method: "A.B", ContentType: "text/plain"}, 415},
		{map[string]string{"protocol": "grpc"}, Call{Service: "s", Method: "A.B c\r\n"}, 400},
		{map[string]string{"protocol": "http"}, sayHello, 400},
		{nil, Call{Service: "s", Method: "m", ContentType: "text/plain"}, 415},
		{nil, Call{Service: "s", Method: "m", Body: []byte(`{"a":`)}, 400},
		{mucp, Call{Service: "s", Method: "m", Body: []byte(`{}],"x":[`)}, 400},
	} {
		var refusal *httpmsg.Error
		if _, err := c.Call(t.Context(), dead(tt.metadata), tt.call); !errors.As(err, &refusal) || refusal.Status != tt.status {
			t.Errorf("%v %+v: %v, want %d", tt.metadata, tt.call, err, tt.status)
		}
	}
	if _, err := c.Call(t.Context(), dead(nil), sayHello); !NotSent(err) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestConnectionCloseIsHonoured(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) {
		return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"result\":{}}", false
	})
	old := startWire(t, func(string, string) (string, bool) {
		return "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"result\":{}}", false
	})
	c := newClient(t, Options{})
	for i := range 50 {
		for _, addr := range []string{w.addr, old.addr} {
			if _, err := c.Call(t.Context(), node(t, addr, nil), sayHello); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
	}
}

func TestMetadataThatStays(t *testing.T) {
	from := httpmsg.Header{
		{Name: "X-Request-Id", Value: "7"}, {Name: "authorization", Value: "Bearer x"}, {Name: "User-Agent", Value: "curl"}, {Name: "Micro-Trace-Id", Value: "1"},
		{Name: "Micro-Handler", Value: "rpc"}, {Name: "Micro-From-Service", Value: "me"},
		{Name: "X-A-Very-Long-Name-That-Is-Longer-Than-Any-Other", Value: "1"},
	}
	for _, name := range []string{
		"Host", "connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization", "Content-Type", "content-encoding",
		"Content-Length", "Range", "If-None-Match", "Expect", "Accept", "Accept-Encoding", "Timeout", "Micro-Service", "micro-method", "X-MICRO-Endpoint", "Micro-Id",
		"Micro-Error", "X-Micro-Protocol", "Micro-Stream", "Micro-Topic", "Micro-Target", "Micro-Token", "X-Micro-From-Service", "X-Hop",
		"Content-Security-Policy-With-A-Long-Name", "bad name",
	} {
		value := "1"
		if name == "connection" {
			value = "close, x-hop"
		}
		from.Add(name, value)
	}
	got := appendMetadata(nil, from)
	if len(got) != 7 {
		t.Errorf("goes along: %v", got)
	}
	for i := range got {
		if got[i] != from[i] {
			t.Errorf("%v became %v", from[i], got[i])
		}
	}
}
