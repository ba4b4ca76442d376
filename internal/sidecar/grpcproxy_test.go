package sidecar

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/micro/sidecar/registry"
)

// startGRPC starts a gRPC server that implements grpc.testing.TestService.
func startGRPC(t *testing.T, s testpb.TestServiceServer, options ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return server, l.Addr().String()
}

// registerAt registers a node of any kind.
func (r *running) registerAt(name, id, addr string, metadata map[string]string) {
	r.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		r.t.Fatal(err)
	}
	n := registry.Node{ID: id, Address: host, Metadata: metadata}
	if _, err := fmt.Sscan(port, &n.Port); err != nil {
		r.t.Fatal(err)
	}
	if err := r.registry.Register(r.t.Context(), registry.Service{Name: name, Nodes: []registry.Node{n}}, 0); err != nil {
		r.t.Fatal(err)
	}
}

const testService = "go.micro.srv.grpc.testing.TestService"

// throughProxy starts a sidecar with --handler=proxy and connects a gRPC client
// to it.
func throughProxy(t *testing.T, node string, change func(*Config)) *grpc.ClientConn {
	t.Helper()
	s := run(t, func(c *Config) {
		c.Handler = "proxy"
		if change != nil {
			change(c)
		}
	})
	for _, name := range []string{testService, "go.micro.srv.grpc.testing.UnimplementedService"} {
		s.registerAt(name, "n", node, map[string]string{"protocol": "grpc"})
	}
	scheme, addr, _ := strings.Cut(s.url, "://")
	trust := insecure.NewCredentials()
	if scheme == "https" {
		trust = credentials.NewClientTLSFromCert(s.trust, "example.com")
	}
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(trust))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// The interop client's cases end the process when they fail.
func TestProxyGRPCInterop(t *testing.T) {
	_, node := startGRPC(t, interop.NewTestServer())
	t.Run("clear", func(t *testing.T) { testInterop(t, throughProxy(t, node, nil)) })
	t.Run("TLS", func(t *testing.T) {
		c := httptest.NewTLSServer(nil) // for its certificate
		c.Close()
		roots := x509.NewCertPool()
		roots.AddCert(c.Certificate())
		testInterop(t, throughProxy(t, node, func(cfg *Config) {
			cfg.TLS = &tls.Config{Certificates: c.TLS.Certificates, RootCAs: roots, MinVersion: tls.VersionTLS12}
		}))
	})
}

func testInterop(t *testing.T, cc *grpc.ClientConn) {
	tc := testpb.NewTestServiceClient(cc)
	for name, run := range map[string]func(context.Context, testpb.TestServiceClient, ...grpc.CallOption){
		"empty_unary": interop.DoEmptyUnaryCall, "large_unary": interop.DoLargeUnaryCall, "client_streaming": interop.DoClientStreaming,
		"server_streaming": interop.DoServerStreaming, "ping_pong": interop.DoPingPong, "empty_stream": interop.DoEmptyStream,
		"timeout_on_sleeping_server": interop.DoTimeoutOnSleepingServer, "cancel_after_begin": interop.DoCancelAfterBegin,
		"cancel_after_first_response": interop.DoCancelAfterFirstResponse, "custom_metadata": interop.DoCustomMetadata,
		"status_code_and_message": interop.DoStatusCodeAndMessage, "special_status_message": interop.DoSpecialStatusMessage,
		"unimplemented_method": func(ctx context.Context, _ testpb.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedMethod(ctx, cc)
		},
		"unimplemented_service": func(ctx context.Context, _ testpb.TestServiceClient, _ ...grpc.CallOption) {
			interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(cc))
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			run(ctx, tc)
		})
	}
}

// playing is a TestService whose methods a test plays.
type playing struct {
	testpb.UnimplementedTestServiceServer
	unary  func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	duplex func(testpb.TestService_FullDuplexCallServer) error
}

func (p *playing) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return p.unary(ctx, r)
}

func (p *playing) FullDuplexCall(s testpb.TestService_FullDuplexCallServer) error { return p.duplex(s) }

func payload(n int) *testpb.Payload { return &testpb.Payload{Body: make([]byte, n)} }

func TestProxyGRPCUnary(t *testing.T) {
	errs := status.New(codes.FailedPrecondition, "nö%\n")
	errs, err := errs.WithDetails(durationpb.New(7 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	var left time.Duration
	_, node := startGRPC(t, &playing{unary: func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		_ = grpc.SetHeader(ctx, metadata.Pairs("echo-bin", md.Get("some-bin")[0], "echo-bin", md.Get("some-bin")[1]))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("tail-bin", "\x01\x00"))
		if r.ResponseSize < 0 {
			return nil, errs.Err()
		}
		return &testpb.SimpleResponse{Payload: payload(int(r.ResponseSize))}, nil
	}}, grpc.MaxRecvMsgSize(32<<20))
	tc := testpb.NewTestServiceClient(throughProxy(t, node, nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "some-bin", "\x00\xff\xfe", "some-bin", "b")
	for _, size := range []int{0, 1, 16 << 10, 16 << 20} {
		var header, trailer metadata.MD
		res, err := tc.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: int32(size), Payload: payload(size)},
			grpc.Header(&header), grpc.Trailer(&trailer), grpc.MaxCallRecvMsgSize(32<<20))
		if err != nil || len(res.Payload.Body) != size {
			t.Fatalf("size %d: %v", size, err)
		}
		if fmt.Sprintf("%q", header.Get("echo-bin")) != `["\x00\xff\xfe" "b"]` || fmt.Sprintf("%q", trailer.Get("tail-bin")) != `["\x01\x00"]` {
			t.Errorf("header %q, trailer %q", header, trailer)
		}
		if left <= 30*time.Second || left > time.Minute {
			t.Errorf("the node has %v left of a minute", left)
		}
	}
	_, err = tc.UnaryCall(ctx, &testpb.SimpleRequest{ResponseSize: -1})
	if got := status.Convert(err); got.Code() != codes.FailedPrecondition || got.Message() != "nö%\n" || len(got.Details()) != 1 ||
		got.Details()[0].(*durationpb.Duration).Seconds != 7 {
		t.Errorf("error %v, details %v", err, got.Details())
	}
}

// A stream may last longer than the timeout, though its node has sent nothing.
func TestProxyGRPCStreamsHaveTheirOwnTime(t *testing.T) {
	_, node := startGRPC(t, &playing{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		for {
			if _, err := s.Recv(); err != nil {
				return status.Error(codes.Aborted, "late")
			}
		}
	}})
	tc := testpb.NewTestServiceClient(throughProxy(t, node, func(c *Config) { c.RequestTimeout = time.Second }))
	stream, err := tc.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond) // in all longer than the timeout: there is nothing to wait for
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("%v", err)
	}
}

func TestProxyGRPCCancellation(t *testing.T) {
	ended := make(chan error, 1)
	_, node := startGRPC(t, &playing{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		_ = s.Send(&testpb.StreamingOutputCallResponse{})
		<-s.Context().Done()
		ended <- s.Context().Err()
		return s.Context().Err()
	}})
	tc := testpb.NewTestServiceClient(throughProxy(t, node, nil))
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		t.Log(err)
	case <-time.After(20 * time.Second):
		t.Error("the node was not told that the client is gone")
	}
	ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if stream, err = tc.FullDuplexCall(ctx); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	select {
	case err := <-ended:
		t.Log(err)
	case <-time.After(20 * time.Second):
		t.Error("the node was not told that the time is over")
	}
}

// A node that dies leaves no client with half an answer that looks whole.
func TestProxyGRPCNodeDies(t *testing.T) {
	var server *grpc.Server
	server, node := startGRPC(t, &playing{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		_ = s.Send(&testpb.StreamingOutputCallResponse{Payload: payload(100)})
		_, _ = s.Recv() // the client has it
		go server.Stop()
		<-s.Context().Done()
		return nil
	}})
	tc := testpb.NewTestServiceClient(throughProxy(t, node, nil))
	stream, err := tc.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testpb.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("a node that dies: %v", err)
	}
	if _, err := tc.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a node that is gone: %v", err)
	}
}

// Who does not read stops who sends, through the proxy.
func TestProxyGRPCFlowControl(t *testing.T) {
	var sent atomic.Int64
	_, node := startGRPC(t, &playing{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
		for {
			if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: payload(64 << 10)}); err != nil {
				return err
			}
			sent.Add(64 << 10)
		}
	}})
	tc := testpb.NewTestServiceClient(throughProxy(t, node, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := tc.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	eventually(t, "the node has stopped", func() bool {
		before := last
		last = sent.Load()
		time.Sleep(100 * time.Millisecond)
		return last == before
	})
	if last > 8<<20 {
		t.Errorf("the node sent %d bytes that nobody reads", last)
	}
	for range 20 { // and goes on when it is read again
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the node goes on", func() bool { _, err := stream.Recv(); return err == nil && sent.Load() > last })
}

// HTTP/1.1 clients reach nodes that speak HTTP/2 alone, and HTTP/2 clients those
// that speak HTTP/1.1.
func TestProxyBetweenProtocols(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-TE", r.Header.Get("TE"))
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(bytes.ToUpper(b))
		w.Header().Set("X-Sum", r.Trailer.Get("X-Check"))
	}
	only2 := &http.Server{Handler: http.HandlerFunc(echo), Protocols: new(http.Protocols)}
	only2.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = only2.Serve(l) }()
	defer only2.Close()
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	s.registerAt("go.micro.srv.two", "n", l.Addr().String(), map[string]string{"h2c": "true"})
	s.registerAt("go.micro.srv.one", "n", startHTTP(t, echo).Listener.Addr().String(), nil)
	for _, test := range []struct{ client, path, node string }{
		{"HTTP/1.1", "/two/x", "HTTP/2.0"}, {"HTTP/2.0", "/one/x", "HTTP/1.1"}, {"HTTP/2.0", "/two/x", "HTTP/2.0"},
	} {
		client := &http.Transport{Protocols: new(http.Protocols)}
		client.Protocols.SetHTTP1(test.client == "HTTP/1.1")
		client.Protocols.SetUnencryptedHTTP2(test.client == "HTTP/2.0")
		body, in := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.url+test.path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("TE", "trailers")
		r.Trailer = http.Header{"X-Check": {"7"}}
		res, err := client.RoundTrip(r)
		if err != nil {
			t.Fatal(test, err)
		}
		_, _ = io.WriteString(in, "hello") // the head came first
		_ = in.Close()
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		te := ""
		if test.node == "HTTP/2.0" {
			te = "trailers"
		}
		if err != nil || string(b) != "HELLO" || res.Proto != test.client || res.Header.Get("X-Proto") != test.node || res.Trailer.Get("X-Sum") != "7" || res.Header.Get("X-TE") != te {
			t.Errorf("%v: %s %q, %v, header %v, trailer %v", test, res.Proto, b, err, res.Header, res.Trailer)
		}
		client.CloseIdleConnections()
	}
}
