package transport

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// standardMethod finds the method of a gRPC server that is none of go-micro's.
// A full name with a protobuf body needs no description of it.
func (c *Client) standardMethod(ctx context.Context, n *discovery.Node, call Call, media string) (*grpcMethod, error) {
	owner, name, isPath, err := splitMethod(call.Method)
	if err != nil {
		return nil, err
	}
	if isPath && media == Protobuf {
		return &grpcMethod{path: "/" + owner + "/" + name, contentType: "application/grpc", codec: asIs{}}, nil
	}
	listed, err := c.schemas.get(ctx, keyOf(n, call.Service, ""), func() (*schema, error) { return c.listServices(ctx, n) })
	if err != nil {
		return nil, err
	}
	full, err := pick(owner, listed.services, !isPath, func() string { return "service " + call.Service + " has no gRPC service " + owner })
	if err != nil {
		return nil, err
	}
	s, err := c.schemas.get(ctx, keyOf(n, call.Service, full), func() (*schema, error) { return c.describe(ctx, n, full) })
	switch {
	case err != nil:
		return nil, err
	case s.methods == nil:
		return nil, &NodeError{Addr: n.Addr, Refused: true, Err: notDescribed(full)}
	}
	return s.method(name, media)
}

// notDescribed is what is wrong with a node whose reflection lists a service
// and does not know it.
type notDescribed string

func (s notDescribed) Error() string {
	return "lists gRPC service " + string(s) + " and does not describe it"
}

// splitMethod takes a method's name apart: "Say.Hello", "pkg.Say.Hello",
// "pkg.Say/Hello" or "/pkg.Say/Hello". isPath says that the owner's name is
// the full one.
func splitMethod(method string) (owner, name string, isPath bool, err error) {
	text := strings.TrimPrefix(method, "/")
	at := strings.LastIndexByte(text, '/')
	isPath = at >= 0 || text != method
	if !isPath {
		at = strings.LastIndexByte(text, '.')
	}
	if at <= 0 || at == len(text)-1 || strings.Contains(text[:at], "/") {
		return "", "", false, httpmsg.Errorf(http.StatusBadRequest, "method %q names no service: Service.Method or package.Service/Method was expected", method)
	}
	return text[:at], text[at+1:], isPath, nil
}

// pick returns the one of names that wanted means: the very name, else one
// whose last element it is (when partly), else either of these whatever the
// case. none begins the error of a name that is not there.
func pick(wanted string, names []string, partly bool, none func() string) (string, error) {
	if slices.Contains(names, wanted) {
		return wanted, nil
	}
	for _, match := range [...]func(name string) bool{
		func(name string) bool { return partly && strings.HasSuffix(name, "."+wanted) },
		func(name string) bool { return strings.EqualFold(name, wanted) },
		func(name string) bool {
			cut := len(name) - len(wanted) - 1
			return partly && cut > 0 && name[cut] == '.' && strings.EqualFold(name[cut+1:], wanted)
		},
	} {
		var found []string
		for _, name := range names {
			if match(name) {
				found = append(found, name)
			}
		}
		switch {
		case len(found) == 1:
			return found[0], nil
		case len(found) > 1 && partly:
			return "", httpmsg.Errorf(http.StatusBadRequest, "%s is ambiguous: it may be %s; name it in full, as in %s/Method at /rpc", wanted, several(found), found[0])
		case len(found) > 1:
			return "", httpmsg.Errorf(http.StatusBadRequest, "%s is ambiguous: it may be %s", wanted, several(found))
		}
	}
	if len(names) == 0 {
		return "", httpmsg.Errorf(http.StatusNotFound, "%s, nor any other", none())
	}
	return "", httpmsg.Errorf(http.StatusNotFound, "%s; there is %s", none(), several(names))
}

// several lists names for people, the first of many.
func several(names []string) string {
	const most = 20
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// described is what a schema knows of a method.
type described struct {
	json, protobuf *grpcMethod
	missing        protoreflect.FullName // a type that JSON needs and nobody described
}

// describe takes the service's methods up into s.
func (s *schema) describe(service protoreflect.ServiceDescriptor, types *dynamicpb.Types) {
	s.name, s.methods = string(service.FullName()), map[string]described{}
	methods := service.Methods()
	whole := map[protoreflect.FullName]bool{} // types with nothing missing, which are not walked through again
	for i := range methods.Len() {
		d := methods.Get(i)
		m := grpcMethod{
			path: "/" + s.name + "/" + string(d.Name()), contentType: "application/grpc", codec: asIs{},
			takesOne: !d.IsStreamingClient(), givesOne: !d.IsStreamingServer(),
		}
		protobuf := m
		m.codec = &dynamic{in: d.Input(), out: d.Output(), types: types}
		missing := unresolved(d.Input(), whole)
		if missing == "" {
			missing = unresolved(d.Output(), whole)
		}
		if missing != "" {
			clear(whole) // it holds types that led there
		}
		s.names = append(s.names, string(d.Name()))
		s.methods[string(d.Name())] = described{json: &m, protobuf: &protobuf, missing: missing}
	}
}

// method finds a method of the schema's service.
func (s *schema) method(name, media string) (*grpcMethod, error) {
	name, err := pick(name, s.names, false, func() string { return "gRPC service " + s.name + " has no method " + name })
	if err != nil {
		return nil, err
	}
	switch m := s.methods[name]; {
	case media == Protobuf:
		return m.protobuf, nil
	case m.missing != "":
		return nil, httpmsg.Errorf(http.StatusNotImplemented, "server reflection does not describe %s, which method %s/%s needs; send protobuf to it", m.missing, s.name, name)
	default:
		return m.json, nil
	}
}

// unresolved returns the name of a type within the message that was not
// described, or "".
func unresolved(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) protoreflect.FullName {
	if m.IsPlaceholder() {
		return m.FullName()
	}
	if seen[m.FullName()] {
		return ""
	}
	seen[m.FullName()] = true
	fields := m.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if e := f.Enum(); e != nil && e.IsPlaceholder() {
			return e.FullName()
		}
		if inner := f.Message(); inner != nil {
			if missing := unresolved(inner, seen); missing != "" {
				return missing
			}
		}
	}
	return ""
}
