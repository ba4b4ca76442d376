package transport

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

// describer is a reflection service of the test's own making.
type describer struct {
	reflectpb.UnimplementedServerReflectionServer
	file func(name string) []byte // nil: there is none
}

func (d *describer) ServerReflectionInfo(s reflectpb.ServerReflection_ServerReflectionInfoServer) error {
	for {
		ask, err := s.Recv()
		if err != nil {
			return nil // the client has ended it
		}
		answer := &reflectpb.ServerReflectionResponse{OriginalRequest: ask}
		name := ask.GetFileByFilename()
		if ask.GetFileContainingSymbol() != "" {
			name = "grpc/testing/test.proto"
		}
		switch file := d.file(name); {
		case ask.GetListServices() != "":
			answer.MessageResponse = &reflectpb.ServerReflectionResponse_ListServicesResponse{ListServicesResponse: &reflectpb.ListServiceResponse{
				Service: []*reflectpb.ServiceResponse{{Name: "grpc.testing.TestService"}, {Name: "grpc.reflection.v1.ServerReflection"}},
			}}
		case file == nil:
			answer.MessageResponse = &reflectpb.ServerReflectionResponse_ErrorResponse{ErrorResponse: &reflectpb.ErrorResponse{ErrorCode: 5, ErrorMessage: "no " + name}}
		default:
			answer.MessageResponse = &reflectpb.ServerReflectionResponse_FileDescriptorResponse{FileDescriptorResponse: &reflectpb.FileDescriptorResponse{FileDescriptorProto: [][]byte{file}}}
		}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}

// describedBy starts a server whose reflection gives those files.
func describedBy(t *testing.T, file func(name string) []byte) *standard {
	return startStandard(t, testserver.NoReflection, func(s *grpc.Server) {
		reflectpb.RegisterServerReflectionServer(s, &describer{file: file})
	})
}

// serialised is a file as reflection sends it.
func serialised(t *testing.T, d protoreflect.FileDescriptor) []byte {
	t.Helper()
	b, err := proto.Marshal(protodesc.ToFileDescriptorProto(d))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReflectionFileByFile: not every server sends what a file imports with it.
func TestReflectionFileByFile(t *testing.T) {
	files := map[string][]byte{}
	for _, d := range []protoreflect.FileDescriptor{testpb.File_grpc_testing_test_proto, testpb.File_grpc_testing_messages_proto, testpb.File_grpc_testing_empty_proto} {
		files[d.Path()] = serialised(t, d)
	}
	s, c := describedBy(t, func(name string) []byte { return files[name] }), newClient(t, Options{})
	got, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall", Body: []byte(`{"responseSize":1}`)})
	if err != nil || string(got) != `{"payload":{"body":"AA=="},"username":"a deadline"}` {
		t.Errorf("%s, %v", got, err)
	}
}

// TestReflectionLacksAFile: methods that do not need it work.
func TestReflectionLacksAFile(t *testing.T) {
	files := map[string][]byte{
		"grpc/testing/test.proto":  serialised(t, testpb.File_grpc_testing_test_proto),
		"grpc/testing/empty.proto": serialised(t, testpb.File_grpc_testing_empty_proto),
	}
	s, c := describedBy(t, func(name string) []byte { return files[name] }), newClient(t, Options{})
	var e *ServiceError
	if _, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.EmptyCall"}); !errors.As(err, &e) || e.Code != 501 {
		t.Errorf("a method that does not need it: %v, want the server's own refusal", err)
	}
	var refusal *httpmsg.Error
	_, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall"})
	if !errors.As(err, &refusal) || refusal.Status != 501 || !strings.Contains(refusal.Detail, "grpc.testing.SimpleRe") {
		t.Errorf("a method that needs it: %v", err)
	}
	if _, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall", ContentType: Protobuf}); err != nil {
		t.Errorf("protobuf: %v", err)
	}
}

// TestReflectionLies: a node that describes itself wrongly is a node that
// failed, before anything was sent of the call.
func TestReflectionLies(t *testing.T) {
	whole := protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_test_proto)
	whole.Name = proto.String("grpc/testing/test.proto")
	whole.Service[0].Method[0].InputType = proto.String(".nothing.At.All")
	whole.Dependency = nil
	dangling, err := proto.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]func(string) []byte{
		"garbage":   func(string) []byte { return []byte("\xff\xff\xff") },
		"too large": func(string) []byte { return make([]byte, maxDescriptors+1) },
		"nothing":   func(string) []byte { return nil },
		"another":   func(string) []byte { return serialised(t, testpb.File_grpc_testing_empty_proto) },
	} {
		s, c := describedBy(t, file), newClient(t, Options{})
		_, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.UnaryCall"})
		if !NotSent(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s, c := describedBy(t, func(string) []byte { return dangling }), newClient(t, Options{})
	if _, err := c.Call(within(t), s.node, Call{Service: "x", Method: "TestService.EmptyCall"}); err == nil {
		t.Error("a type that nobody knows: no error")
	}
}

func TestReflectionThatHangs(t *testing.T) {
	release := make(chan struct{})
	s, c := describedBy(t, func(string) []byte { <-release; return nil }), newClient(t, Options{})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Call(ctx, s.node, Call{Service: "x", Method: "TestService.UnaryCall"}); !errors.Is(err, context.DeadlineExceeded) || !NotSent(err) {
		t.Errorf("%v", err)
	}
}

// TestDynamicWellKnownTypes: their JSON is their own, whoever describes them.
func TestDynamicWellKnownTypes(t *testing.T) {
	types := dynamicpb.NewTypes(protoregistry.GlobalFiles)
	for _, tt := range []struct {
		of   proto.Message
		json string
	}{
		{&timestamppb.Timestamp{}, `"2020-01-02T03:04:05.600Z"`},
		{&durationpb.Duration{}, `"1.500s"`},
		{&structpb.Struct{}, `{"a":[1,true,null,{"b":"c"}]}`},
		{&wrapperspb.Int64Value{}, `"9007199254740993"`},
		{&anypb.Any{}, `{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}`},
		{&testpb.StreamingOutputCallRequest{}, `{"responseParameters":[{"size":1,"compressed":{"value":true}}]}`},
	} {
		m := tt.of.ProtoReflect().Descriptor()
		d := &dynamic{in: m, out: m, types: types}
		b, err := d.request([]byte(tt.json))
		if err != nil {
			t.Errorf("%s: %v", m.FullName(), err)
			continue
		}
		if got, err := d.result(b); err != nil || string(got) != tt.json {
			t.Errorf("%s: %s, %v, want %s", m.FullName(), got, err, tt.json)
		}
	}
	deep := strings.Repeat(`{"a":`, 200) + "1" + strings.Repeat("}", 200)
	m := (&structpb.Struct{}).ProtoReflect().Descriptor()
	var refusal *httpmsg.Error
	if _, err := (&dynamic{in: m, out: m, types: types}).request([]byte(deep)); !errors.As(err, &refusal) || refusal.Status != 400 {
		t.Errorf("a message nested too deep: %v", err)
	}
}
