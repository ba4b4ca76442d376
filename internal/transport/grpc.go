package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// isGRPC reports whether the node is a gRPC server.
func isGRPC(n *discovery.Node) bool {
	if !n.HTTP2 { // the common case, without a look at the map
		return false
	}
	protocol := n.Metadata["protocol"]
	return protocol == "grpc" || protocol == "" && n.Metadata["server"] == "grpc"
}

// isStandard reports whether a gRPC node is none of go-micro's, which take
// JSON: others are called in protobuf.
func isStandard(n *discovery.Node) bool { return n.Metadata["grpc"] == "standard" }

// grpcMethod is a method of a gRPC node and how its messages are made.
type grpcMethod struct {
	path        string // "/pkg.Say/Hello"
	contentType string
	codec       codec
	goMicro     bool
	// takesOne and givesOne say that the method is known not to stream that way.
	takesOne, givesOne bool
}

// codec turns messages into the node's form and back.
type codec interface {
	// request makes what is sent of what a caller gave; its error is an
	// *[httpmsg.Error].
	request(message []byte) ([]byte, error)
	// result makes what the caller gets of what the node sent.
	result(message []byte) ([]byte, error)
}

// asIs passes protobuf on.
type asIs struct{}

func (asIs) request(m []byte) ([]byte, error) { return m, nil }
func (asIs) result(m []byte) ([]byte, error)  { return m, nil }

// plainJSON is the JSON that go-micro's servers understand.
type plainJSON struct{}

func (plainJSON) request(m []byte) ([]byte, error) { return argument(m) }
func (plainJSON) result(m []byte) ([]byte, error) {
	if len(m) == 0 {
		return []byte("{}"), nil
	}
	return compact(m)
}

// method finds what a call means to the node.
func (c *Client) method(ctx context.Context, n *discovery.Node, call Call) (*grpcMethod, error) {
	media, ok := MediaType(call.ContentType)
	switch {
	case !ok:
		return nil, httpmsg.Errorf(http.StatusUnsupportedMediaType, "content type %q is neither JSON nor protobuf", call.ContentType)
	case isStandard(n):
		return c.standardMethod(ctx, n, call, media)
	}
	m := &grpcMethod{path: goMicroPath(call), contentType: "application/grpc+json", codec: plainJSON{}, goMicro: true}
	if media == Protobuf {
		m.contentType, m.codec = "application/grpc+proto", asIs{}
	}
	return m, nil
}

// goMicroPath is the path of a method, as go-micro's client makes it: the
// service's name in front of "Say.Hello", unless the method has a path already.
func goMicroPath(call Call) string {
	if strings.Contains(call.Method, "/") {
		return "/" + strings.TrimPrefix(call.Method, "/")
	}
	dot := strings.LastIndexByte(call.Method, '.')
	if dot < 0 {
		return "/" + call.Service + "/" + call.Method
	}
	owner, method := call.Method[:dot], call.Method[dot+1:]
	if !strings.Contains(owner, ".") {
		owner = call.Service + "." + owner
	}
	return "/" + owner + "/" + method
}

// callGRPC is Call for a gRPC node.
func (c *Client) callGRPC(ctx context.Context, n *discovery.Node, call Call) ([]byte, error) {
	m, framed, err := c.prepare(ctx, n, call)
	if err != nil && c.schemas.renew(n, call.Service, err) {
		m, framed, err = c.prepare(ctx, n, call)
	}
	if err != nil {
		return nil, err
	}
	s, err := c.openGRPC(ctx, n, call, m, bytes.NewReader(framed), int64(len(framed)))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	result, err := s.Recv()
	switch {
	case errors.Is(err, io.EOF) && m.givesOne:
		return nil, nonsense(n.Addr, "ended the call without an answer")
	case errors.Is(err, io.EOF):
		return nil, notOne(call.Method, "no message")
	case err != nil:
		return nil, err
	}
	switch _, err = s.Recv(); {
	case errors.Is(err, io.EOF):
		return result, nil
	case err == nil && m.givesOne:
		return nil, nonsense(n.Addr, "answered several messages to a method that answers one")
	case err == nil:
		return nil, notOne(call.Method, "several messages")
	}
	return nil, err
}

// notOne refuses to choose among the messages of a stream.
func notOne(method, got string) error {
	return httpmsg.Errorf(http.StatusNotAcceptable, "method %s streams: it answered %s where one was expected; ask for all with Accept: application/x-ndjson", method, got)
}

// prepare finds the method and makes the request's body.
func (c *Client) prepare(ctx context.Context, n *discovery.Node, call Call) (*grpcMethod, []byte, error) {
	m, err := c.method(ctx, n, call)
	if err != nil {
		return nil, nil, err
	}
	message, err := m.codec.request(call.Body)
	if err != nil {
		return nil, nil, err
	}
	return m, appendGRPC(make([]byte, 0, grpcPrefix+len(message)), message), nil
}

// openGRPC sends a request and returns when the answer begins.
func (c *Client) openGRPC(ctx context.Context, n *discovery.Node, call Call, m *grpcMethod, body io.Reader, length int64) (*grpcStream, error) {
	res, err := c.Do(ctx, n.Peer, &httpmsg.Request{
		Method: http.MethodPost, Target: m.path, Host: authority(n.Addr),
		Header: grpcHeader(ctx, call, m), Body: body, Length: length,
	})
	if err != nil {
		return nil, err
	}
	s := &grpcStream{ctx: ctx, addr: n.Addr, service: call.Service, method: m, res: res, limit: c.maxBody}
	if err = s.begun(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// grpcHeader makes the header of a request. Metadata whose name begins with
// "grpc-" is gRPC's own, and go-micro's servers want one x-content-type.
func grpcHeader(ctx context.Context, call Call, m *grpcMethod) httpmsg.Header {
	h := make(httpmsg.Header, 0, len(call.Header)+7)
	h.Add("te", "trailers")
	h.Add("content-type", m.contentType)
	if m.goMicro { // its versions before 2 look for it here alone
		h.Add("x-content-type", m.contentType)
	}
	h.Add("grpc-accept-encoding", "identity")
	told := call.Timeout
	if deadline, ok := ctx.Deadline(); ok && told <= 0 {
		told = max(time.Until(deadline), 1)
	}
	if told > 0 {
		h.Add("grpc-timeout", grpcTimeout(told))
		if m.goMicro { // it reads this one, in nanoseconds
			h.Add("timeout", strconv.FormatInt(int64(told), 10))
		}
	}
	own := len(h)
	h = appendMetadata(h, call.Header)
	metadata := slices.DeleteFunc(h[own:], func(f httpmsg.Field) bool {
		return len(f.Name) >= len("grpc-") && strings.EqualFold(f.Name[:len("grpc-")], "grpc-") ||
			m.goMicro && strings.EqualFold(f.Name, "x-content-type")
	})
	return h[:own+len(metadata)]
}

// grpcTimeout writes a positive duration with at most eight digits, in the
// finest unit that takes it.
func grpcTimeout(d time.Duration) string {
	const most = 99_999_999
	for _, u := range [...]struct {
		size time.Duration
		name string
	}{{time.Nanosecond, "n"}, {time.Microsecond, "u"}, {time.Millisecond, "m"}, {time.Second, "S"}, {time.Minute, "M"}} {
		if n := d / u.size; n <= most {
			return strconv.FormatInt(int64(n), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d/time.Hour), 10) + "H"
}
