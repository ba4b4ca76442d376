package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/micro/sidecar/internal/httpmsg"
)

// FuzzReadGRPC: a body is messages as they were framed, or an error; never more
// than the limit.
func FuzzReadGRPC(f *testing.F) {
	f.Add(appendGRPC(appendGRPC(nil, []byte("a")), nil))
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{0, 255, 255, 255, 255, 1})
	f.Add([]byte{0, 0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, body []byte) {
		const limit = 1 << 10
		in := bytes.NewReader(body)
		var again []byte
		for {
			m, err := readGRPC(in, limit)
			if errors.Is(err, io.EOF) {
				if !bytes.Equal(again, body) {
					t.Errorf("%x was read as %x", body, again)
				}
				return
			}
			if err != nil {
				return
			}
			if len(m) > limit {
				t.Errorf("a message of %d bytes", len(m))
			}
			again = appendGRPC(again, m)
		}
	})
}

// FuzzGRPCStatus: whatever ends a call is a status or none; an error has a code
// that can be a status, and text.
func FuzzGRPCStatus(f *testing.F) {
	f.Add("5", "50%25 no", "CAUSBG5vcGU=")
	f.Add("0", "", "")
	f.Add("2", `{"id":"a","code":409,"detail":"b"}`, "!")
	f.Add("16", "%", "GhYKHHR5cGUuZ29vZ2xlYXBpcy5jb20=")
	f.Fuzz(func(t *testing.T, number, message, details string) {
		code, e, ok := grpcStatus(httpmsg.Header{{Name: "grpc-status", Value: number}, {Name: "grpc-message", Value: message}, {Name: "grpc-status-details-bin", Value: details}})
		switch {
		case !ok:
			if e != nil {
				t.Error("an error without a status")
			}
		case (code == grpcOK) != (e == nil):
			t.Errorf("code %d with %v", code, e)
		case e != nil && (e.Code < 400 || e.Code > 599 || !utf8.ValidString(e.Detail)):
			t.Errorf("%+v", e)
		}
	})
}

// FuzzReflection: an answer is read or refused, and its files make a
// description that converts messages, or an error.
func FuzzReflection(f *testing.F) {
	// Small on purpose: large ones take a minute each to be minimised.
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if of != "" {
			f.TypeName = &of
		}
		return f
	}
	service := func(of string) []*descriptorpb.ServiceDescriptorProto {
		return []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("M"), InputType: &of, OutputType: &of},
		}}}
	}
	good := &descriptorpb.FileDescriptorProto{
		Name: proto.String("a.proto"), Package: proto.String("p"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("T"), Field: []*descriptorpb.FieldDescriptorProto{
			field("a", 1, descriptorpb.FieldDescriptorProto_TYPE_INT32, ""), field("b", 2, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, ".p.T"),
		}}},
		Service: service(".p.T"),
	}
	lacking := &descriptorpb.FileDescriptorProto{Name: proto.String("b.proto"), Dependency: []string{"c.proto"}, Service: service(".c.T")}
	evil := &descriptorpb.FileDescriptorProto{
		Name: proto.String("evil.proto"), Package: proto.String("google.protobuf"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Timestamp")}}, Service: service(".google.protobuf.Timestamp"),
	}
	pack := func(files ...*descriptorpb.FileDescriptorProto) []byte {
		var inner []byte
		for _, d := range files {
			raw, err := proto.Marshal(d)
			if err != nil {
				f.Fatal(err)
			}
			inner = binary.AppendUvarint(append(inner, 0x0a), uint64(len(raw)))
			inner = append(inner, raw...)
		}
		return append(binary.AppendUvarint([]byte{0x22}, uint64(len(inner))), inner...)
	}
	f.Add(pack(good), []byte(`{"a":1,"b":{"b":{}}}`))
	f.Add(pack(good, lacking), []byte(`{}`))
	f.Add(pack(evil), []byte(`"2020-01-01T00:00:00Z"`))
	f.Add([]byte("\x32\x05\x0a\x03\x0a\x01a"), []byte(`{}`))
	f.Add([]byte("\x3a\x04\x08\x05\x12\x00"), []byte(`{}`))
	f.Fuzz(func(t *testing.T, answer, text []byte) {
		r, err := parseReflection(answer)
		if err != nil {
			return
		}
		set, talking := &descriptorpb.FileDescriptorSet{}, &talk{node: versioned("1", "h")}
		if talking.take(r.files, set, map[string]bool{}) != nil {
			return
		}
		files, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
		if err != nil {
			return
		}
		files.RangeFiles(func(d protoreflect.FileDescriptor) bool {
			for i := range d.Services().Len() {
				s := &schema{}
				s.describe(d.Services().Get(i), dynamicpb.NewTypes(files))
				for _, name := range s.names {
					m, err := s.method(name, JSON)
					if err != nil {
						continue
					}
					if b, err := m.codec.request(text); err == nil {
						_, _ = m.codec.result(b) // an error is fine
					}
				}
			}
			return true
		})
	})
}
