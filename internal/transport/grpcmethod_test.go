package transport

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// describeTypes describes a service whose method X1 takes message M1, and so
// on; refers says which message is the type of a message's field, "" for none.
func describeTypes(t *testing.T, n int, refers func(i int) string) *schema {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("a.proto"), Syntax: proto.String("proto3")}
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String("S")}
	for i := range n {
		message := &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("M", i))}
		if name := refers(i); name != "" {
			message.Field = []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("f"), Number: proto.Int32(1), TypeName: proto.String("." + name),
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}}
		}
		in := proto.String(fmt.Sprint(".M", i))
		file.MessageType = append(file.MessageType, message)
		service.Method = append(service.Method, &descriptorpb.MethodDescriptorProto{Name: proto.String(fmt.Sprint("X", i)), InputType: in, OutputType: in})
	}
	file.Service = []*descriptorpb.ServiceDescriptorProto{service}
	registry, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	found, err := registry.FindDescriptorByName("S")
	if err != nil {
		t.Fatal(err)
	}
	s := &schema{}
	s.describe(found.(protoreflect.ServiceDescriptor), dynamicpb.NewTypes(registry))
	return s
}

// Every method that needs a type which nobody described says so, and no other.
func TestMissingTypes(t *testing.T) {
	s := describeTypes(t, 6, func(i int) string { return []string{"", "M0", "Gone", "M2", "M3", "M5"}[i] })
	for name, missing := range map[string]string{"X0": "", "X1": "", "X2": "Gone", "X3": "Gone", "X4": "Gone", "X5": ""} {
		if got := s.methods[name].missing; string(got) != missing {
			t.Errorf("method %s misses %q, want %q", name, got, missing)
		}
	}
}

// A service with many methods is described in a time that grows as it does, not
// with the product of methods and types.
func TestManyMethods(t *testing.T) {
	const n = 10_000
	begun := time.Now()
	s := describeTypes(t, n, func(i int) string { return fmt.Sprint("M", (i+1)%n) })
	if took := time.Since(begun); took > 20*time.Second || len(s.names) != n {
		t.Errorf("%d methods took %v", len(s.names), took)
	}
}
