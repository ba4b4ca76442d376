package sidecar

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/micro/sidecar/internal/testserver"
)

const (
	jsonType  = "application/json"
	lineType  = "application/x-ndjson"
	testPath  = "/interop/test-service/"
	twoAnswer = `{"responseParameters":[{"size":1},{"size":2}]}`
	endless   = `{"responseParameters":[{"size":1},{"size":1,"intervalUs":1},{"size":1}]}`
)

// withGRPC starts a sidecar with a gRPC server behind it.
func withGRPC(t *testing.T, change func(*Config)) *running {
	t.Helper()
	s, g := run(t, change), testserver.StartGRPC(t, testserver.ReflectionV1)
	s.expect(200, "", "POST", "/registry", jsonType, fmt.Sprintf(
		`{"Name":"go.micro.srv.interop","Version":"1","Nodes":[{"Id":"i","Address":%q,"Metadata":{"protocol":"grpc","grpc":"standard"}}]}`, g.Addr))
	return s
}

func TestCallGRPC(t *testing.T) {
	s := withGRPC(t, nil)
	want := `{"payload":{"body":"AA=="},"username":"a deadline"}`
	s.expect(200, want, "POST", testPath+"unary-call", jsonType, `{"responseSize":1}`)
	s.expect(200, want, "POST", "/rpc", jsonType, `{"service":"go.micro.srv.interop","method":"grpc.testing.TestService/UnaryCall","request":{"responseSize":1}}`)
	s.expect(200, `{"status":"SERVING"}`, "POST", "/interop/health/check", jsonType, ``)
	s.refused(400, "unknown field", "POST", testPath+"unary-call", jsonType, `{"nothing":1}`)
	s.refused(404, "UnaryCall", "POST", testPath+"nothing", jsonType, `{}`)
	s.refused(406, lineType, "POST", testPath+"streaming-output-call", jsonType, twoAnswer)
	status, text := s.try("POST", testPath+"unary-call", jsonType, `{"responseStatus":{"code":7,"message":"not you"}}`)
	if status != 403 || text != `{"id":"go.micro.srv.interop","code":403,"detail":"not you","status":"Forbidden"}` {
		t.Errorf("a status: %d %s", status, text)
	}
	body, err := proto.Marshal(&testpb.SimpleRequest{ResponseSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	status, text, h := s.full("POST", testPath+"unary-call", "application/x-protobuf", string(body))
	var answer testpb.SimpleResponse
	if err := proto.Unmarshal([]byte(text), &answer); status != 200 || err != nil || answer.Username != "a deadline" || h.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("protobuf: %d %q, %v", status, text, err)
	}
}

// eachWay runs f with clients that come in by each of the sidecar's ways.
func eachWay(t *testing.T, s *running, f func(t *testing.T, c *http.Client)) {
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	for name, tr := range map[string]*http.Transport{
		"fast path": {}, "net/http": {MaxConnsPerHost: 1}, "HTTP/2": {Protocols: &clear},
	} {
		t.Run(name, func(t *testing.T) {
			c := &http.Client{Transport: tr}
			defer tr.CloseIdleConnections()
			if name == "net/http" { // one of the sidecar's own paths moves the connection there
				resp, err := c.Get(s.url + "/livez")
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			f(t, c)
		})
	}
}

// streams makes a request that accepts lines and returns the answer.
func (r *running) streams(ctx context.Context, t *testing.T, c *http.Client, path, contentType string, body io.Reader) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "text/html, "+lineType+";q=0.9")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestStreamOfLines(t *testing.T) {
	s := withGRPC(t, nil)
	eachWay(t, s, func(t *testing.T, c *http.Client) {
		for _, tt := range []struct {
			path, contentType, body string
			status                  int
			want                    string
		}{
			{testPath + "streaming-output-call", jsonType, twoAnswer, 200, `{"payload":{"body":"AA=="}}` + "\n" + `{"payload":{"body":"AAA="}}` + "\n"},
			{testPath + "streaming-output-call", jsonType, `{}`, 200, ""},
			{testPath + "unary-call", jsonType, ``, 200, `{"payload":{},"username":"no deadline"}` + "\n"},
			{testPath + "streaming-input-call", lineType, `{"payload":{"body":"AAAA"}}` + "\r\n\n" + `{"payload":{"body":"AA=="}}`, 200, `{"aggregatedPayloadSize":4}` + "\n"},
			{"/rpc", jsonType, `{"service":"go.micro.srv.interop","method":"TestService.StreamingOutputCall","request":{"responseParameters":[{"size":1}]}}`, 200, `{"payload":{"body":"AA=="}}` + "\n"},
			{"/rpc", "application/x-www-form-urlencoded", "service=go.micro.srv.interop&method=TestService.UnaryCall", 200, `{"payload":{},"username":"no deadline"}` + "\n"},
			{"/rpc?service=go.micro.srv.interop&method=TestService.StreamingInputCall", lineType, `{}`, 200, "{}\n"},
			{"/rpc", lineType, `{}`, 400, "service is missing"},
			{testPath + "streaming-output-call", jsonType, `{"responseStatus":{"code":7,"message":"not you"}}`, 403, "not you"},
			{testPath + "streaming-output-call", jsonType, `{"nothing":1}`, 400, "unknown field"},
			{testPath + "streaming-output-call", "application/protobuf", ``, 415, "WebSocket"},
			{testPath + "streaming-output-call", "text/html", ``, 415, "neither"},
			{testPath + "unary-call", lineType, "{}\n{}\n", 400, "takes one message"},
			{"/nosuch/x", lineType, "{}", 404, "not found"},
		} {
			resp := s.streams(t.Context(), t, c, tt.path, tt.contentType, strings.NewReader(tt.body))
			got, err := io.ReadAll(resp.Body)
			kind := jsonType
			if tt.status == 200 {
				kind = lineType
			}
			if err != nil || resp.StatusCode != tt.status || tt.status == 200 && string(got) != tt.want || !strings.Contains(string(got), tt.want) || resp.Header.Get("Content-Type") != kind {
				t.Errorf("%s %s: %d %s %q, %v\nwant %d %s", tt.path, tt.body, resp.StatusCode, resp.Header.Get("Content-Type"), got, err, tt.status, tt.want)
			}
		}
	})
}

// TestStreamThatFails: an error behind the first message is the last line, and
// the answer is no whole one.
func TestStreamThatFails(t *testing.T) {
	s := withGRPC(t, nil)
	eachWay(t, s, func(t *testing.T, c *http.Client) {
		resp := s.streams(t.Context(), t, c, testPath+"streaming-output-call", jsonType,
			strings.NewReader(`{"responseParameters":[{"size":1}],"responseStatus":{"code":10,"message":"late"}}`))
		got, err := io.ReadAll(resp.Body)
		want := `{"payload":{"body":"AA=="}}` + "\n" + `{"error":{"id":"go.micro.srv.interop","code":409,"detail":"late","status":"Conflict"}}` + "\n"
		if resp.StatusCode != 200 || string(got) != want || err == nil {
			t.Errorf("%d %s, %v", resp.StatusCode, got, err)
		}
	})
}

// TestStreamDuplex: a line is answered before the next one is sent, and the
// end of the requests ends the call.
func TestStreamDuplex(t *testing.T) {
	s := withGRPC(t, nil)
	eachWay(t, s, func(t *testing.T, c *http.Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		in, out := io.Pipe()
		go fmt.Fprintln(out, `{"payload":{"body":"AA=="}}`)
		resp := s.streams(ctx, t, c, testPath+"full-duplex-call", lineType, in)
		lines := bufio.NewReader(resp.Body)
		for i := range 3 {
			if got, err := lines.ReadString('\n'); err != nil || got != `{"payload":{"body":"AA=="}}`+"\n" {
				t.Fatalf("answer %d: %q, %v", i, got, err)
			}
			if i < 2 {
				if _, err := fmt.Fprintln(out, `{"payload":{"body":"AA=="}}`); err != nil {
					t.Fatal(err)
				}
			}
		}
		out.Close()
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("at the end: %q, %v", rest, err)
		}
	})
}

// TestStreamOutlivesTheTimeout, which is for calls; the client's own holds.
func TestStreamOutlivesTheTimeout(t *testing.T) {
	t.Parallel()
	s := withGRPC(t, func(c *Config) { c.RequestTimeout = 2 * time.Second })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resp := s.streams(ctx, t, http.DefaultClient, testPath+"streaming-output-call", jsonType, strings.NewReader(endless))
	lines := bufio.NewReader(resp.Body)
	for range 2 {
		if got, err := lines.ReadString('\n'); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	more := make(chan string, 1)
	go func() { line, _ := lines.ReadString('\n'); more <- line }()
	select {
	case line := <-more:
		t.Errorf("the stream went on with %q", line)
	case <-time.After(3 * time.Second):
	}
	cancel()
	<-more
	status, text := s.try("POST", testPath+"streaming-output-call", jsonType, `{"responseParameters":[{"intervalUs":1}]}`, "Accept", lineType, "Timeout", "2s")
	if !strings.Contains(text, "EOF") {
		t.Errorf("a client's timeout: %d %s", status, text)
	}
}

func TestStreamEndsWithTheSidecar(t *testing.T) {
	s := withGRPC(t, func(c *Config) { c.ShutdownGrace = 4 * time.Second })
	resp := s.streams(t.Context(), t, http.DefaultClient, testPath+"streaming-output-call", jsonType, strings.NewReader(endless))
	conn := s.dial(t, testPath+"streaming-output-call", nil)
	send(t, conn, websocket.MessageText, endless)
	receive(t, conn, `{"payload":{"body":"AA=="}}`)
	receive(t, conn, `{"payload":{"body":"AA=="}}`)
	ended := make(chan error, 1)
	go func() { ended <- s.end() }()
	got, err := io.ReadAll(resp.Body)
	if err == nil || !strings.HasSuffix(string(got), `"code":503,"detail":"the sidecar is shutting down","status":"Service Unavailable"}}`+"\n") {
		t.Errorf("lines: %s, %v", got, err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("WebSocket: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// dial opens a WebSocket.
func (r *running) dial(t *testing.T, path string, c *http.Client, protocols ...string) *websocket.Conn {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(r.url, "http")+path, &websocket.DialOptions{HTTPClient: c, Subprotocols: protocols})
	if err != nil {
		t.Fatalf("%v, %v", err, resp)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func send(t *testing.T, conn *websocket.Conn, kind websocket.MessageType, message string) {
	t.Helper()
	if err := conn.Write(t.Context(), kind, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if kind, got, err := conn.Read(ctx); err != nil || kind != websocket.MessageText || string(got) != want {
		t.Errorf("received %v %s, %v, want %s", kind, got, err, want)
	}
}

// closes requires the connection's end.
func closes(t *testing.T, conn *websocket.Conn, code websocket.StatusCode, part string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, got, err := conn.Read(ctx)
	var end websocket.CloseError
	if !errors.As(err, &end) || end.Code != code || !strings.Contains(end.Reason, part) {
		t.Errorf("at the end: %s, %v, want %v %q", got, err, code, part)
	}
}

func TestStreamOverWebSocket(t *testing.T) {
	s := withGRPC(t, nil)
	eachWay(t, s, func(t *testing.T, c *http.Client) {
		if strings.HasSuffix(t.Name(), "HTTP/2") {
			return // WebSocket over HTTP/2 (RFC 8441) is another protocol
		}
		const one = `{"payload":{"body":"AA=="}}`
		// A method that takes one message needs no end of the requests.
		conn := s.dial(t, testPath+"streaming-output-call", c)
		send(t, conn, websocket.MessageText, twoAnswer)
		receive(t, conn, one)
		receive(t, conn, `{"payload":{"body":"AAA="}}`)
		closes(t, conn, websocket.StatusNormalClosure, "")

		conn = s.dial(t, "/rpc?"+url.Values{"service": {"go.micro.srv.interop"}, "method": {"TestService.FullDuplexCall"}}.Encode(), c)
		for range 3 {
			send(t, conn, websocket.MessageText, one)
			receive(t, conn, one)
		}
		if err := conn.Write(t.Context(), websocket.MessageText, nil); err != nil {
			t.Fatal(err)
		}
		closes(t, conn, websocket.StatusNormalClosure, "")

		conn = s.dial(t, testPath+"streaming-output-call", c)
		send(t, conn, websocket.MessageText, `{"responseParameters":[{"size":1}],"responseStatus":{"code":10,"message":"late"}}`)
		receive(t, conn, one)
		receive(t, conn, `{"error":{"id":"go.micro.srv.interop","code":409,"detail":"late","status":"Conflict"}}`)
		closes(t, conn, websocket.StatusInternalError, "late")
	})
}

func TestWebSocketProtobuf(t *testing.T) {
	s := withGRPC(t, nil)
	conn := s.dial(t, testPath+"full-duplex-call", nil, "other", "protobuf")
	if conn.Subprotocol() != "protobuf" {
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}
	body, err := proto.Marshal(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{string(body), ""} { // an empty binary frame is a message
		send(t, conn, websocket.MessageBinary, body)
		kind, got, err := conn.Read(t.Context())
		var m testpb.StreamingOutputCallResponse
		if err != nil || kind != websocket.MessageBinary || proto.Unmarshal(got, &m) != nil || (len(m.GetPayload().GetBody()) == 1) != (body != "") {
			t.Errorf("received %v %q, %v", kind, got, err)
		}
	}
	send(t, conn, websocket.MessageText, "")
	closes(t, conn, websocket.StatusNormalClosure, "")
}

func TestWebSocketRefuses(t *testing.T) {
	s := withGRPC(t, func(c *Config) { c.MaxBodySize = 1 << 10 })
	for _, tt := range []struct {
		method string
		kind   websocket.MessageType
		send   []string
		code   int
		part   string
	}{
		{"full-duplex-call", websocket.MessageText, []string{`{`}, 400, "malformed JSON"},
		{"full-duplex-call", websocket.MessageText, []string{`{"nothing":1}`}, 400, "unknown field"},
		{"streaming-output-call", websocket.MessageText, []string{`{"responseParameters":[{"intervalUs":1}]}`, "", "{}"}, 400, "behind the empty one"},
		{"streaming-output-call", websocket.MessageText, []string{`{"responseParameters":[{"intervalUs":1}]}`, "{}"}, 400, "takes one message"},
		{"full-duplex-call", websocket.MessageBinary, []string{"x"}, 415, "subprotocol"},
		{"nothing", websocket.MessageText, nil, 404, "UnaryCall"},
		{"unary-call", websocket.MessageText, []string{`{"responseStatus":{"code":7,"message":"` + strings.Repeat("ü", 200) + `"}}`}, 403, "ü"},
	} {
		conn := s.dial(t, testPath+tt.method, nil)
		for _, m := range tt.send {
			if err := conn.Write(t.Context(), tt.kind, []byte(m)); err != nil {
				break // the connection may have ended already
			}
		}
		_, got, err := conn.Read(t.Context())
		if err == nil && string(got) == `{"payload":{}}` {
			_, got, err = conn.Read(t.Context())
		}
		var last struct {
			Error struct {
				Code   int
				Detail string
			}
		}
		if err != nil || json.Unmarshal(got, &last) != nil || last.Error.Code != tt.code || !strings.Contains(last.Error.Detail, tt.part) {
			t.Errorf("%s %q: %s, %v, want %d with %q", tt.method, tt.send, got, err, tt.code, tt.part)
			continue
		}
		closes(t, conn, websocket.StatusInternalError, "")
	}
	conn := s.dial(t, testPath+"full-duplex-call", nil)
	send(t, conn, websocket.MessageText, `"`+strings.Repeat("x", 2<<10)+`"`)
	closes(t, conn, websocket.StatusMessageTooBig, "")

	// What can be said before the handshake is a plain answer.
	const upgrade = "13"
	s.refused(404, "nosuch", "GET", "/nosuch/x", "", "", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", upgrade, "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	s.refused(400, "Sec-WebSocket-Key", "GET", testPath+"unary-call", "", "", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", upgrade)
	s.refused(403, "origin", "GET", testPath+"unary-call", "", "", "Origin", "https://evil.example", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Version", upgrade, "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	s.refused(405, "POST", "GET", testPath+"unary-call", "", "")
}

// TestWebSocketClientLeaves: the call ends with its client.
func TestWebSocketClientLeaves(t *testing.T) {
	s := withGRPC(t, nil)
	for _, leave := range []func(*websocket.Conn) error{
		func(c *websocket.Conn) error { return c.Close(websocket.StatusNormalClosure, "") },
		(*websocket.Conn).CloseNow,
	} {
		conn := s.dial(t, testPath+"streaming-output-call", nil)
		send(t, conn, websocket.MessageText, endless)
		receive(t, conn, `{"payload":{"body":"AA=="}}`)
		if err := leave(conn); err != nil {
			t.Error(err)
		}
	}
	start := time.Now()
	if err := s.end(); err != nil || time.Since(start) > 15*time.Second {
		t.Errorf("the sidecar stopped after %v: %v", time.Since(start), err)
	}
}

// TestStreamsOfOtherNodes: they take one message and give one.
func TestStreamsOfOtherNodes(t *testing.T) {
	s := run(t, func(c *Config) { c.RequestTimeout = 3 * time.Second })
	s.register("go.micro.srv.example", "n1", node(t, "n1"), "")
	want := `{"node":"n1","method":"Example.Call","got":{"name":"John"}}`
	s.expect(200, want+"\n", "POST", "/example/call", jsonType, `{"name": "John"}`, "Accept", lineType)
	s.expect(200, want+"\n", "POST", "/example/call", lineType, `{"name": "John"}`)
	s.expect(200, "", "POST", "/registry", jsonType, `{"Name":"go.micro.srv.dead","Nodes":[{"Id":"d","Address":"127.0.0.1:1"}]}`)
	s.refused(502, "", "POST", "/dead/call", lineType, `{}`)
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees the client go only then
		<-r.Context().Done()
	}))
	defer slow.Close()
	s.register("go.micro.srv.slow", "n", slow, "")
	s.refused(504, "", "POST", "/slow/call", jsonType, `{}`, "Accept", lineType)
	conn := s.dial(t, "/example/call", nil)
	send(t, conn, websocket.MessageText, `{"name":"John"}`)
	receive(t, conn, want)
	send(t, conn, websocket.MessageText, "")
	closes(t, conn, websocket.StatusNormalClosure, "")

	conn = s.dial(t, "/example/call", nil)
	send(t, conn, websocket.MessageText, `{"name":"John"}`)
	receive(t, conn, want)
	send(t, conn, websocket.MessageText, `{"name":"John"}`)
	send(t, conn, websocket.MessageText, `{"name":"John"}`) // one that nobody asks for any more
	_, got, err := conn.Read(t.Context())
	if err != nil || !strings.Contains(string(got), `"code":501`) {
		t.Errorf("a second message: %s, %v", got, err)
	}
	closes(t, conn, websocket.StatusInternalError, "takes one message")
}
