package transport

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/micro/sidecar/internal/httpmsg"

	// The well-known types are described by us, whatever the node says.
	_ "google.golang.org/protobuf/types/known/anypb"
	_ "google.golang.org/protobuf/types/known/durationpb"
	_ "google.golang.org/protobuf/types/known/emptypb"
	_ "google.golang.org/protobuf/types/known/fieldmaskpb"
	_ "google.golang.org/protobuf/types/known/structpb"
	_ "google.golang.org/protobuf/types/known/timestamppb"
	_ "google.golang.org/protobuf/types/known/wrapperspb"
)

// dynamic turns JSON into the protobuf messages of a described method and back,
// as the JSON mapping of protobuf says.
type dynamic struct {
	in, out protoreflect.MessageDescriptor
	types   *dynamicpb.Types
}

// maxDepth bounds how deep messages are nested, as in the other languages'
// protobuf.
const maxDepth = 100

func (d *dynamic) request(text []byte) (_ []byte, err error) {
	if text, err = argument(text); err != nil {
		return nil, err
	}
	message := dynamicpb.NewMessage(d.in)
	err = guarded(func() error {
		return protojson.UnmarshalOptions{Resolver: resolver{d.types}, RecursionLimit: maxDepth}.Unmarshal(text, message)
	})
	if err == nil {
		text, err = proto.Marshal(message)
	}
	if err != nil {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "the request is no %s: %s", d.in.FullName(), plain(err))
	}
	return text, nil
}

func (d *dynamic) result(b []byte) ([]byte, error) {
	message := dynamicpb.NewMessage(d.out)
	var text []byte
	err := guarded(func() error {
		err := proto.UnmarshalOptions{AllowPartial: true, Resolver: resolver{d.types}, RecursionLimit: maxDepth}.Unmarshal(b, message)
		if err == nil {
			text, err = protojson.MarshalOptions{AllowPartial: true, Resolver: resolver{d.types}}.Marshal(message)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("answered what makes no %s: %s", d.out.FullName(), plain(err))
	}
	return compact(text) // protojson's spaces vary on purpose
}

// guarded calls f. protojson trusts well-known types to have the fields that
// they should have, which a node's description may not give them.
func guarded(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("its description makes no sense: %v", v)
		}
	}()
	return f()
}

// plain is protobuf's error without the decoration that varies on purpose.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
}

// resolver finds types by name: the node's, then the well-known ones.
type resolver struct{ *dynamicpb.Types }

func (r resolver) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if t, err := r.Types.FindMessageByName(name); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindMessageByName(name)
}

func (r resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := r.Types.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindMessageByURL(url)
}
