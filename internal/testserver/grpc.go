package testserver

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
)

// Reflection is the way in which a gRPC server describes itself.
type Reflection string

// The ways there are.
const (
	ReflectionV1      Reflection = "v1"
	ReflectionV1Alpha Reflection = "v1alpha"
	NoReflection      Reflection = "none"
)

// GRPC is a gRPC server with gRPC's own test service and health service.
type GRPC struct {
	Addr string // "host:port"
	// Looks counts the conversations with its reflection service.
	Looks atomic.Int64
	// Metadata is that of the last unary call.
	Metadata atomic.Pointer[metadata.MD]
}

// StartGRPC runs a gRPC server; more may register further services.
func StartGRPC(t testing.TB, describe Reflection, more ...func(*grpc.Server)) *GRPC {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &GRPC{Addr: l.Addr().String()}
	s := grpc.NewServer(grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		if strings.HasPrefix(info.FullMethod, "/grpc.reflection.") {
			g.Looks.Add(1)
		}
		return h(srv, ss)
	}))
	testpb.RegisterTestServiceServer(s, &interop{seen: &g.Metadata})
	healthpb.RegisterHealthServer(s, health.NewServer())
	for _, f := range more {
		f(s)
	}
	switch describe {
	case ReflectionV1:
		reflection.RegisterV1(s)
	case ReflectionV1Alpha:
		reflectalpha.RegisterServerReflectionServer(s, reflection.NewServer(reflection.ServerOptions{Services: s}))
	case NoReflection:
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return g
}

// interop is gRPC's test service, as much of it as is needed here.
type interop struct {
	testpb.UnimplementedTestServiceServer
	seen *atomic.Pointer[metadata.MD]
}

func (s *interop) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.seen.Store(&md)
	if e := r.GetResponseStatus(); e != nil {
		return nil, status.Error(codes.Code(e.Code), e.Message)
	}
	left := "no deadline"
	if _, ok := ctx.Deadline(); ok {
		left = "a deadline"
	}
	return &testpb.SimpleResponse{Username: left, Payload: &testpb.Payload{Body: make([]byte, r.ResponseSize)}}, nil
}

func (s *interop) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, out testpb.TestService_StreamingOutputCallServer) error {
	for _, p := range r.ResponseParameters {
		if err := out.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
		if p.IntervalUs > 0 { // stands for a stream that stays open
			<-out.Context().Done()
			return out.Context().Err()
		}
	}
	if e := r.GetResponseStatus(); e != nil {
		return status.Error(codes.Code(e.Code), e.Message)
	}
	return nil
}

func (s *interop) StreamingInputCall(in testpb.TestService_StreamingInputCallServer) error {
	var sum int32
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		sum += int32(len(m.GetPayload().GetBody()))
	}
}

func (s *interop) FullDuplexCall(both testpb.TestService_FullDuplexCallServer) error {
	for {
		m, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := both.Send(&testpb.StreamingOutputCallResponse{Payload: m.Payload}); err != nil {
			return err
		}
	}
}
