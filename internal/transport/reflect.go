package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

const (
	// reflectTimeout bounds one look into a node.
	reflectTimeout = 5 * time.Second
	// maxDescriptors bounds what a node may say about one service, in bytes.
	maxDescriptors = 8 << 20
	// reflectionPrefix is that of the services which only describe.
	reflectionPrefix = "grpc.reflection."
)

// listServices asks a node for the full names of its gRPC services.
func (c *Client) listServices(ctx context.Context, n *discovery.Node) (*schema, error) {
	var services []string
	err := c.look(ctx, n, func(t *talk) error {
		r, err := t.ask(askServices, "*")
		if err != nil {
			return err
		}
		if r.code != grpcOK {
			return nonsense(n.Addr, "does not list its services: %s", r.message)
		}
		services = slices.DeleteFunc(r.services, func(s string) bool { return strings.HasPrefix(s, reflectionPrefix) })
		slices.Sort(services)
		services = slices.Compact(services)
		return nil
	})
	return &schema{services: services}, err
}

// describe asks a node for the description of one gRPC service. A service that
// it does not have gives a schema without one.
func (c *Client) describe(ctx context.Context, n *discovery.Node, name string) (*schema, error) {
	s := &schema{}
	err := c.look(ctx, n, func(t *talk) error {
		files, err := t.files(name)
		if err != nil || files == nil {
			return err
		}
		registry, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(files)
		if err != nil {
			return nonsense(n.Addr, "describes service %s wrongly: %w", name, err)
		}
		found, err := registry.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := found.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			return nil
		}
		s.describe(service, dynamicpb.NewTypes(registry))
		return nil
	})
	return s, err
}

// talk is a conversation with a node's reflection service.
type talk struct {
	ctx     context.Context
	asks    chan []byte
	answers *grpcStream
	node    *discovery.Node
	open    func() (*grpcStream, error)
	size    int // of the descriptors so far
}

// look talks to the node in the version of reflection that it has. Nothing of
// the call itself has been sent then: any failure leaves it to another node.
func (c *Client) look(ctx context.Context, n *discovery.Node, f func(*talk) error) error {
	looking, cancel := context.WithTimeout(ctx, reflectTimeout)
	defer cancel()
	for _, version := range [...]string{"v1", "v1alpha"} {
		err := c.lookIn(looking, n, version, f)
		var refused *statusError
		switch failed := (*NodeError)(nil); {
		case errors.As(err, &refused) && refused.code == grpcUnimplemented:
			continue
		case errors.As(err, &refused):
			return &NodeError{Addr: n.Addr, Refused: true, Err: fmt.Errorf("refused reflection: %w", refused.err)}
		case errors.As(err, &failed):
			why := failed.Err
			if ctx.Err() == nil && looking.Err() != nil {
				why = errors.New("did not answer reflection in time")
			}
			return &NodeError{Addr: n.Addr, Err: why}
		default:
			return err
		}
	}
	return httpmsg.Errorf(http.StatusNotImplemented, "node %s has no server reflection (grpc.reflection.v1), which JSON for a gRPC server that is not go-micro's needs; register the reflection service in it, or send protobuf to /package.Service/Method", n.Addr)
}

func (c *Client) lookIn(ctx context.Context, n *discovery.Node, version string, f func(*talk) error) error {
	t := &talk{ctx: ctx, asks: make(chan []byte, 1), node: n}
	defer close(t.asks)
	next := func() ([]byte, error) {
		select {
		case m, ok := <-t.asks:
			if !ok {
				return nil, io.EOF
			}
			return m, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	t.open = func() (*grpcStream, error) {
		m := &grpcMethod{path: "/" + reflectionPrefix + version + ".ServerReflection/ServerReflectionInfo", contentType: "application/grpc", codec: asIs{}}
		call := Call{Service: "reflection"}
		return c.openGRPC(ctx, n, call, m, &grpcBody{method: m, requests: &Requests{Next: next}}, -1)
	}
	defer func() {
		if t.answers != nil {
			t.answers.Close()
		}
	}()
	return f(t)
}

// statusError is an error of the reflection service itself.
type statusError struct {
	code grpcCode
	err  *ServiceError
}

func (e *statusError) Error() string { return e.err.Error() }

// ask sends a question and waits for the answer.
func (t *talk) ask(field protowire.Number, value string) (reflected, error) {
	select {
	case t.asks <- reflectionRequest(field, value):
	case <-t.ctx.Done(): // the node answers and does not read
		return reflected{}, failed(t.ctx, t.node.Addr, true, t.ctx.Err())
	}
	var err error
	if t.answers == nil {
		if t.answers, err = t.open(); err != nil {
			return reflected{}, asStatus(err)
		}
	}
	t.answers.limit = maxDescriptors
	message, err := t.answers.Recv()
	if errors.Is(err, io.EOF) {
		return reflected{}, nonsense(t.node.Addr, "ended reflection without an answer")
	}
	if err != nil {
		return reflected{}, asStatus(err)
	}
	r, err := parseReflection(message)
	if err != nil {
		return reflected{}, nonsense(t.node.Addr, "%w", err)
	}
	return r, nil
}

// asStatus marks what the reflection service answered as an error.
func asStatus(err error) error {
	if said := (*ServiceError)(nil); errors.As(err, &said) {
		code := grpcCode(2)
		if said.Code == http.StatusNotImplemented {
			code = grpcUnimplemented
		}
		return &statusError{code, said}
	}
	return err
}

// files collects the file of a symbol and all that it imports; nil when there
// is no such symbol. An import that neither the node nor we have is left out:
// often it is that of an option which nobody here reads.
func (t *talk) files(symbol string) (*descriptorpb.FileDescriptorSet, error) {
	r, err := t.ask(askSymbol, symbol)
	if err != nil {
		return nil, err
	}
	switch r.code {
	case grpcOK:
	case grpcNotFound:
		return nil, nil
	default:
		return nil, nonsense(t.node.Addr, "does not describe %s: %s", symbol, r.message)
	}
	set := &descriptorpb.FileDescriptorSet{}
	known := map[string]bool{}
	if err := t.take(r.files, set, known); err != nil {
		return nil, err
	}
	for i := 0; i < len(set.File); i++ { // it grows meanwhile
		for _, name := range set.File[i].Dependency {
			if known[name] {
				continue
			}
			if file := wellKnown(name); file != nil {
				known[name] = true
				set.File = append(set.File, file)
				continue
			}
			r, err := t.ask(askFile, name)
			if err != nil {
				return nil, err
			}
			if err := t.take(r.files, set, known); err != nil {
				return nil, err
			}
			known[name] = true // else it is left out
		}
	}
	return set, nil
}

// take adds files to the set.
func (t *talk) take(files [][]byte, set *descriptorpb.FileDescriptorSet, known map[string]bool) error {
	for _, raw := range files {
		if t.size += len(raw); t.size > maxDescriptors || len(set.File) >= maxReflected {
			return nonsense(t.node.Addr, "describes itself in more than %d bytes or %d files", maxDescriptors, maxReflected)
		}
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			return nonsense(t.node.Addr, "sent a malformed file descriptor: %w", err)
		}
		if known[file.GetName()] {
			continue
		}
		known[file.GetName()] = true
		if ours := wellKnown(file.GetName()); ours != nil {
			file = ours
		}
		set.File = append(set.File, file)
	}
	return nil
}

// wellKnown returns our description of a file of protobuf's own types: their
// JSON depends on their fields being what they are. nil for other files.
func wellKnown(name string) *descriptorpb.FileDescriptorProto {
	if !strings.HasPrefix(name, "google/protobuf/") {
		return nil
	}
	file, err := protoregistry.GlobalFiles.FindFileByPath(name)
	if err != nil {
		return nil
	}
	return protodesc.ToFileDescriptorProto(file)
}
