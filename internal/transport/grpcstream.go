package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// streamGRPC is Stream for a gRPC node.
func (c *Client) streamGRPC(ctx context.Context, n *discovery.Node, call Call, requests *Requests) (Stream, error) {
	m, err := c.method(ctx, n, call)
	if err != nil && c.schemas.renew(n, call.Service, err) {
		m, err = c.method(ctx, n, call)
	}
	if err != nil {
		return nil, err
	}
	body := &grpcBody{method: m, name: call.Method, requests: requests}
	s, err := c.openGRPC(ctx, n, call, m, body, -1)
	if err != nil {
		if failed := body.failure(); failed != nil {
			return nil, failed
		}
		return nil, err
	}
	s.body = body
	return s, nil
}

// grpcStream is the answer of a gRPC node.
type grpcStream struct {
	ctx     context.Context
	addr    string
	service string
	method  *grpcMethod
	res     *httpmsg.Response
	limit   int64
	body    *grpcBody // nil when the request was one message
}

// begun looks at the answer's head, which may be the whole answer
// ("Trailers-Only").
func (s *grpcStream) begun() error {
	if s.res.Status != http.StatusOK {
		start, _ := ReadLimited(io.LimitReader(s.res.Body, excerptLen), -1, excerptLen) // what was read of it will do
		return answered(s.addr, s.res, fmt.Errorf("answered a gRPC call with status %d: %s", s.res.Status, excerpt(start)))
	}
	kind := s.res.Header.Get("Content-Type")
	if base, _, _ := strings.Cut(kind, ";"); base != "application/grpc" && !strings.HasPrefix(base, "application/grpc+") {
		return nonsense(s.addr, "answered a gRPC call with content type %q", kind)
	}
	if _, e, ok := grpcStatus(s.res.Header); ok && e != nil {
		return s.named(e)
	}
	return nil
}

// named gives an error that names nobody to the service.
func (s *grpcStream) named(e *ServiceError) error {
	if e.ID == "" {
		e.ID = s.service
	}
	return e
}

// Recv reads the next message, or the status.
func (s *grpcStream) Recv() ([]byte, error) {
	message, err := readGRPC(s.res.Body, s.limit)
	if err == nil {
		if message, err = s.method.codec.result(message); err == nil && int64(len(message)) > s.limit {
			err = fmt.Errorf("answered a message of %d bytes of JSON: %d is the limit (--max_body_size)", len(message), s.limit)
		}
		if err != nil {
			return nil, nonsense(s.addr, "%w", err)
		}
		return message, nil
	}
	if errors.Is(err, io.EOF) {
		return nil, s.status()
	}
	if failed := s.body.failure(); failed != nil {
		return nil, failed
	}
	if named := (*NodeError)(nil); errors.As(err, &named) {
		return nil, err
	}
	return nil, failed(s.ctx, s.addr, true, err)
}

// status is how the call ended: io.EOF when it went well.
func (s *grpcStream) status() error {
	var end httpmsg.Header
	if s.res.Trailer != nil {
		end = s.res.Trailer()
	}
	if !end.Has("grpc-status") {
		end = s.res.Header
	}
	switch _, e, ok := grpcStatus(end); {
	case !ok:
		return nonsense(s.addr, "ended the call without a grpc-status")
	case e != nil:
		return s.named(e)
	}
	return io.EOF
}

// Close ends the call.
func (s *grpcStream) Close() {
	_ = s.res.Body.Close() // complete or given up; how its end goes changes nothing
	if s.res.Conn != nil {
		_ = s.res.Conn.Close()
	}
}

// grpcBody is the body of a request: it asks for a message when the one before
// has left.
type grpcBody struct {
	method   *grpcMethod
	name     string // of the method, for errors
	requests *Requests
	room     []byte
	left     []byte // of the message under way
	count    int
	end      error // io.EOF after the last message

	mu  sync.Mutex
	err error
}

// Read gives the messages, each behind its prefix. A read of nothing does not
// wait for one.
func (b *grpcBody) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, b.end
	}
	if len(b.left) == 0 {
		if b.end == nil {
			b.end = b.next()
		}
		if b.end != nil {
			b.fail(b.end)
			return 0, b.end
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// next waits for a message.
func (b *grpcBody) next() error {
	full := b.method.takesOne && b.count > 0
	if full && b.requests.Full != nil {
		b.requests.Full()
		return io.EOF
	}
	message, err := b.requests.next()
	if err != nil {
		return err
	}
	if full {
		return httpmsg.Errorf(http.StatusBadRequest, "method %s takes one message, and got another", b.name)
	}
	if message, err = b.method.codec.request(message); err != nil {
		return err
	}
	b.count++
	b.room = appendGRPC(b.room[:0], message)
	b.left = b.room
	return nil
}

// fail notes what the caller's messages ended with.
func (b *grpcBody) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !errors.Is(err, io.EOF) {
		b.err = err
	}
}

// failure is what the caller's messages ended with, when it was not their end.
func (b *grpcBody) failure() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
