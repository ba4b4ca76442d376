package transport

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// standard is a gRPC server that is none of go-micro's.
type standard struct {
	*testserver.GRPC
	node *discovery.Node
}

func startStandard(t testing.TB, describe testserver.Reflection, more ...func(*grpc.Server)) *standard {
	t.Helper()
	s := testserver.StartGRPC(t, describe, more...)
	return &standard{s, standardNode(t, s.Addr, "1")}
}

// standardNode is a node as somebody registers a gRPC server.
func standardNode(t testing.TB, addr, version string) *discovery.Node {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return discovery.NewNode(registry.Node{
		ID: addr, Address: a.IP.String(), Port: a.Port, Metadata: map[string]string{"protocol": "grpc", "grpc": "standard"},
	}, version)
}

// within bounds what a test waits for a real server.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestStandardCall(t *testing.T) {
	for _, describe := range []testserver.Reflection{testserver.ReflectionV1, testserver.ReflectionV1Alpha} {
		t.Run(string(describe), func(t *testing.T) {
			s, c := startStandard(t, describe), newClient(t, Options{})
			for _, method := range []string{"TestService.UnaryCall", "testservice.unarycall", "grpc.testing.TestService.UnaryCall", "/grpc.testing.TestService/UnaryCall", "grpc.testing.TestService/UnaryCall"} {
				got, err := c.Call(within(t), s.node, Call{Service: "x", Method: method, Body: []byte(`{ "responseSize": 3, "fill_username": true }`)})
				if err != nil || string(got) != `{"payload":{"body":"AAAA"},"username":"a deadline"}` {
					t.Errorf("%s: %s, %v", method, got, err)
				}
			}
			if got, err := c.Call(within(t), s.node, Call{Service: "x", Method: "Health.Check"}); err != nil || string(got) != `{"status":"SERVING"}` {
				t.Errorf("Health.Check: %s, %v", got, err)
			}
			if n := s.Looks.Load(); n > 6 {
				t.Errorf("%d looks into the server", n)
			}
		})
	}
}

func TestStandardProtobuf(t *testing.T) {
	body, err := proto.Marshal(&testpb.SimpleRequest{ResponseSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	for describe, method := range map[testserver.Reflection]string{testserver.NoReflection: "grpc.testing.TestService/UnaryCall", testserver.ReflectionV1: "TestService.UnaryCall"} {
		s, c := startStandard(t, describe), newClient(t, Options{})
		got, err := c.Call(within(t), s.node, Call{Service: "x", Method: method, ContentType: "application/x-protobuf", Body: body})
		var answer testpb.SimpleResponse
		if err != nil || proto.Unmarshal(got, &answer) != nil || len(answer.GetPayload().GetBody()) != 2 {
			t.Errorf("%s: %q, %v", method, got, err)
		}
	}
}

func TestStandardRefuses(t *testing.T) {
	again := func(s *grpc.Server) {
		s.RegisterService(&grpc.ServiceDesc{ServiceName: "other.v1.Health", HandlerType: (*any)(nil)}, nil)
	}
	s, mute, c := startStandard(t, testserver.ReflectionV1, again), startStandard(t, testserver.NoReflection), newClient(t, Options{})
	mute.node.Version = "mute"
	for _, tt := range []struct {
		node         *discovery.Node
		method, body string
		status       int
		part         string
	}{
		{s.node, "Health.Check", "{}", 400, "grpc.health.v1.Health, other.v1.Health"},
		{s.node, "Nothing.Here", "{}", 404, "there is grpc.health.v1.Health, grpc.testing.TestService, other.v1.Health"},
		{s.node, "TestService.Nothing", "{}", 404, "UnaryCall"},
		{s.node, "UnaryCall", "{}", 400, "Service.Method"},
		{s.node, "a/b/c", "{}", 400, "Service.Method"},
		{s.node, "TestService.UnaryCall", `{"nothing":1}`, 400, `unknown field "nothing"`},
		{s.node, "TestService.UnaryCall", `{"responseSize":"x"}`, 400, "responseSize"},
		{s.node, "TestService.UnaryCall", `{`, 400, "malformed JSON"},
		{s.node, "TestService.UnaryCall", `[]`, 400, "grpc.testing.SimpleRequest"},
		{mute.node, "TestService.UnaryCall", `{}`, 501, "reflection"},
	} {
		_, err := c.Call(within(t), tt.node, Call{Service: "x", Method: tt.method, Body: []byte(tt.body)})
		var refusal *httpmsg.Error
		if !errors.As(err, &refusal) || refusal.Status != tt.status || !strings.Contains(refusal.Detail, tt.part) {
			t.Errorf("%s %s: %v, want %d with %q", tt.method, tt.body, err, tt.status, tt.part)
		}
	}
	_, err := c.Call(within(t), s.node, Call{Service: "x", Method: "other.v1.Health/Check"})
	var node *NodeError
	if !errors.As(err, &node) || node.Sent || !strings.Contains(err.Error(), "describe") {
		t.Errorf("a service that reflection does not describe: %v", err)
	}
}

func TestStandardStatus(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	for code, want := range map[codes.Code]int{
		1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500, 14: 503, 15: 500, 16: 401, 99: 500,
	} {
		body := fmt.Sprintf(`{"responseStatus":{"code":%d,"message":"50%% no\nü %%zz"}}`, code)
		_, err := c.Call(within(t), s.node, Call{Service: "svc", Method: "TestService.UnaryCall", Body: []byte(body)})
		var e *ServiceError
		if !errors.As(err, &e) || e.Code != want || e.Detail != "50% no\nü %zz" || e.ID != "svc" || e.Status == "" {
			t.Errorf("%v: %#v, want %d", code, err, want)
		}
	}
	_, err := c.Call(within(t), s.node, Call{Service: "svc", Method: "TestService.UnaryCall", Body: []byte(`{"responseStatus":{"code":14}}`)})
	if err == nil || err.Error() != "gRPC status UNAVAILABLE" {
		t.Errorf("a status without a message: %v", err)
	}
}

func TestGRPCMetadata(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	ctx, cancel := context.WithTimeout(within(t), 30*time.Second)
	defer cancel()
	_, err := c.Call(ctx, s.node, Call{Service: "x", Method: "TestService.UnaryCall", Header: httpmsg.Header{
		{Name: "X-Request-Id", Value: "7"}, {Name: "Authorization", Value: "Basic eA=="}, {Name: "Grpc-Timeout", Value: "1n"}, {Name: "GRPC-Encoding", Value: "gzip"},
		{Name: "Connection", Value: "X-Hop"}, {Name: "X-Hop", Value: "1"}, {Name: "Micro-Token", Value: "secret"}, {Name: "Content-Length", Value: "7"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	md := *s.Metadata.Load()
	if got := md.Get("x-request-id"); len(got) != 1 || got[0] != "7" || len(md.Get("authorization")) != 1 {
		t.Errorf("metadata %v", md)
	}
	for _, name := range []string{"x-hop", "connection", "micro-token", "timeout", "grpc-encoding"} {
		if len(md.Get(name)) > 0 {
			t.Errorf("metadata holds %s: %v", name, md)
		}
	}
}

func TestGRPCTooLarge(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{MaxBody: 64 << 10})
	for size, ok := range map[int]bool{40 << 10: true, 60 << 10: false, 70 << 10: false} { // base64 makes a third more of them
		_, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall", Body: fmt.Appendf(nil, `{"responseSize":%d}`, size)})
		var node *NodeError
		if ok && err != nil || !ok && (!errors.As(err, &node) || !strings.Contains(err.Error(), "max_body_size")) {
			t.Errorf("an answer of %d bytes: %v", size, err)
		}
	}
}

func TestGRPCDeadline(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := c.Call(ctx, s.node, Call{Service: "x", Method: "TestService.StreamingOutputCall", Body: []byte(`{"responseParameters":[{"intervalUs":1}]}`)})
	var e *ServiceError
	if !errors.Is(err, context.DeadlineExceeded) && (!errors.As(err, &e) || e.Code != 504) {
		t.Errorf("a method that takes too long: %v", err)
	}
}

func TestStreamingMethodWithoutStream(t *testing.T) {
	s, c := startStandard(t, testserver.ReflectionV1), newClient(t, Options{})
	for body, want := range map[string]int{
		`{"responseParameters":[{"size":1}]}`:            0,
		`{"responseParameters":[{"size":1},{"size":1}]}`: 406,
		`{}`: 406,
	} {
		_, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.StreamingOutputCall", Body: []byte(body)})
		var refusal *httpmsg.Error
		if want == 0 && err != nil || want != 0 && (!errors.As(err, &refusal) || refusal.Status != want || !strings.Contains(err.Error(), "application/x-ndjson")) {
			t.Errorf("%s: %v, want %d", body, err, want)
		}
	}
	if got, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.StreamingInputCall", Body: []byte(`{"payload":{"body":"AAAA"}}`)}); err != nil || string(got) != `{"aggregatedPayloadSize":3}` {
		t.Errorf("one message to a client-streaming method: %s, %v", got, err)
	}
}

// TestGRPCStatusDetails: go-micro's error in the details goes before the status.
func TestGRPCStatusDetails(t *testing.T) {
	any := func(url string, message []byte) []byte {
		b := append([]byte{0x0a, byte(len(url))}, url...)
		return append(append(b, 0x12, byte(len(message))), message...)
	}
	wrap := func(a []byte) []byte { return append([]byte{0x08, 2, 0x1a, byte(len(a))}, a...) }
	micro := []byte("\x0a\x02me\x10\xa2\x03\x1a\x03tea\x22\x06Teapot")
	for _, tt := range []struct {
		header string
		want   ServiceError
	}{
		{base64.StdEncoding.EncodeToString(wrap(any("type.googleapis.com/errors.Error", micro))), ServiceError{"me", 418, "tea", "Teapot"}},
		{base64.RawStdEncoding.EncodeToString(wrap(any("errors.Error", micro))), ServiceError{"me", 418, "tea", "Teapot"}},
		{base64.StdEncoding.EncodeToString(wrap(any("type.googleapis.com/google.rpc.ErrorInfo", micro))), ServiceError{"", 404, "m", "Not Found"}},
		{"%%%", ServiceError{"", 404, "m", "Not Found"}},
	} {
		_, e, ok := grpcStatus(httpmsg.Header{{Name: "grpc-status", Value: "5"}, {Name: "grpc-message", Value: "m"}, {Name: "grpc-status-details-bin", Value: tt.header}})
		if !ok || e == nil || *e != tt.want {
			t.Errorf("%s: %+v", tt.header, e)
		}
	}
	text, err := json.Marshal(ServiceError{"me", 409, "taken", "Conflict"})
	if err != nil {
		t.Fatal(err)
	}
	if _, e, _ := grpcStatus(httpmsg.Header{{Name: "grpc-status", Value: "2"}, {Name: "grpc-message", Value: string(text)}}); *e != (ServiceError{"me", 409, "taken", "Conflict"}) {
		t.Errorf("go-micro's error as the message: %+v", e)
	}
	for _, no := range []string{"", "x", "-1", "99999999999"} {
		if _, _, ok := grpcStatus(httpmsg.Header{{Name: "grpc-status", Value: no}}); ok {
			t.Errorf("grpc-status %q is taken for one", no)
		}
	}
}

func TestGRPCTimeoutHeader(t *testing.T) {
	for d, want := range map[time.Duration]string{
		1: "1n", 99999999: "99999999n", 100 * time.Millisecond: "100000u", 5 * time.Second: "5000000u", time.Hour: "3600000m",
		300 * time.Hour: "1080000S", 1<<63 - 1: "2562047H",
	} {
		if got := grpcTimeout(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// go-micro's servers are told the content type in their own field, too, and by
// nobody else; others hear what the caller said.
func TestGRPCContentTypeHeader(t *testing.T) {
	call := Call{Header: httpmsg.Header{{Name: "X-Content-Type", Value: "theirs"}, {Name: "grpc-x", Value: "y"}, {Name: "A", Value: "b"}}}
	for _, c := range []struct {
		goMicro bool
		want    string
	}{{true, "[application/grpc+json]"}, {false, "[theirs]"}} {
		var have []string
		for _, f := range grpcHeader(t.Context(), call, &grpcMethod{contentType: "application/grpc+json", goMicro: c.goMicro}) {
			if strings.EqualFold(f.Name, "x-content-type") {
				have = append(have, f.Value)
			}
		}
		if fmt.Sprint(have) != c.want {
			t.Errorf("goMicro %v: %v, want %s", c.goMicro, have, c.want)
		}
	}
}

func BenchmarkCallGRPC(b *testing.B) {
	s, c := startStandard(b, testserver.ReflectionV1), newClient(b, Options{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(b.Context(), s.node, Call{Service: "x", Method: "TestService.UnaryCall", Body: []byte(`{"responseSize":16}`), Timeout: time.Minute}); err != nil {
			b.Fatal(err)
		}
	}
}
