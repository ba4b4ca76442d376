package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// The content types of calls, as nodes understand them.
const (
	JSON     = "application/json"
	Protobuf = "application/protobuf"
)

// Call is one remote procedure call.
type Call struct {
	// Service is the full name, namespace included; Method as in "Say.Hello".
	Service, Method string
	// ContentType is that of the body and of the result: any spelling that
	// [MediaType] knows; "" is JSON.
	ContentType string
	// Header goes along as metadata, but for what belongs to the connection,
	// to the body or to the RPC forms themselves.
	Header httpmsg.Header
	// Body is the argument; an empty one is {} in JSON.
	Body []byte
	// Timeout is what the node is told that it has; 0 means what is left of the
	// context's time.
	Timeout time.Duration
}

// MediaType returns the content type that nodes understand, [JSON] or
// [Protobuf], for a client's spelling of it, whatever its parameters. "" is
// JSON; ok is false when it is neither.
func MediaType(contentType string) (media string, ok bool) {
	base, _, _ := strings.Cut(contentType, ";")
	switch base = strings.TrimSpace(base); {
	case base == "", strings.EqualFold(base, JSON):
		return JSON, true
	case strings.EqualFold(base, Protobuf), strings.EqualFold(base, "application/proto"),
		strings.EqualFold(base, "application/x-protobuf"):
		return Protobuf, true
	}
	return "", false
}

// form is how a node wants to be called; see WIRE forms in docs/rpc.md.
type form interface {
	// request adds the form's own fields to h and returns the body to send.
	request(h *httpmsg.Header, media string, c Call) ([]byte, error)
	// result finds the result, or what the service answered as an error
	// (*ServiceError), in an answer of status 200. Any other error is nonsense.
	result(media string, h httpmsg.Header, body []byte) ([]byte, error)
}

// formOf reads the node's metadata.
func (c *Client) formOf(n *discovery.Node, service string) (form, error) {
	switch n.Metadata["protocol"] {
	case "mucp":
		return raw{stream: c.streams.Add(1)}, nil
	case "http":
		return nil, httpmsg.Errorf(http.StatusBadRequest, "service %s is a plain HTTP service (protocol=http): it has no RPC methods, request it by path through the proxy", service)
	}
	// The bare envelope is what every server understands that speaks RPC at all.
	return bare{}, nil
}

// Call calls the node n in the form that its metadata asks for and returns the
// result: JSON on one line as the service wrote it, or the protobuf message.
// The node is told how much time it has.
//
// Errors are *[ServiceError], what the service answered; *[NodeError], also for
// answers larger than the client's limit; and *[httpmsg.Error] for a call that
// cannot be made: malformed JSON, an unknown content type, or a node of a kind
// that has no such calls.
func (c *Client) Call(ctx context.Context, n *discovery.Node, call Call) ([]byte, error) {
	if isGRPC(n) {
		return c.callGRPC(ctx, n, call)
	}
	f, err := c.formOf(n, call.Service)
	if err != nil {
		return nil, err
	}
	media, ok := MediaType(call.ContentType)
	if !ok {
		return nil, httpmsg.Errorf(http.StatusUnsupportedMediaType, "content type %q is neither JSON nor protobuf", call.ContentType)
	}
	if media == JSON {
		if call.Body, err = argument(call.Body); err != nil {
			return nil, err
		}
	}
	t := trips.Get().(*trip)
	defer t.end()
	h := &t.header
	h.Add("Accept", media)
	h.Add("Content-Type", media)
	if told := call.Timeout; told > 0 {
		h.Add("Timeout", strconv.FormatInt(int64(told), 10))
	} else if deadline, ok := ctx.Deadline(); ok {
		h.Add("Timeout", strconv.FormatInt(max(int64(time.Until(deadline)), 1), 10))
	}
	body, err := f.request(h, media, call)
	if err != nil {
		return nil, err
	}
	*h = appendMetadata(*h, call.Header)

	result, err := c.post(ctx, n.Peer, t, body, func(res *httpmsg.Response, answer []byte) ([]byte, error) {
		return read(f, media, res, answer)
	})
	if err == nil {
		return result, nil
	}
	if service := (*ServiceError)(nil); errors.As(err, &service) {
		if service.ID == "" {
			service.ID = call.Service
		}
	}
	return nil, err
}

// trip is what a call needs on its way to a node. It is used again.
type trip struct {
	header  httpmsg.Header
	body    bytes.Reader
	request httpmsg.Request
	wish    Forwarding
	lasting bool // a large body may still be read when the call is over
}

var trips = sync.Pool{New: func() any { return &trip{header: make(httpmsg.Header, 0, 16)} }}

func (t *trip) end() {
	if t.lasting || cap(t.header) > maxKept {
		return
	}
	clear(t.header)
	*t = trip{header: t.header[:0]}
	trips.Put(t)
}

// post makes one exchange, reads the whole answer and has the result found in
// it. What makes no sense to read is the node's error.
func (c *Client) post(ctx context.Context, peer discovery.Peer, t *trip, body []byte, read func(*httpmsg.Response, []byte) ([]byte, error)) ([]byte, error) {
	t.lasting = len(body) > together || peer.HTTP2 || peer.TLS
	t.body.Reset(body)
	t.request = httpmsg.Request{
		Method: http.MethodPost, Target: "/", Host: authority(peer.Addr),
		Header: t.header, Body: &t.body, Length: int64(len(body)),
	}
	res, err := c.Forward(ctx, peer, &t.request, &t.wish)
	if err != nil {
		return nil, err
	}
	defer func() {
		// The answer is complete or given up; how its end goes changes nothing.
		if res.Conn != nil {
			_ = res.Conn.Close()
		}
		_ = res.Body.Close()
	}()
	answer, err := ReadLimited(res.Body, res.Length, c.maxBody)
	switch named := (*NodeError)(nil); {
	case errors.Is(err, ErrTooLarge):
		return nil, nonsense(peer.Addr, "answer larger than %d bytes", c.maxBody)
	case errors.As(err, &named):
		return nil, err
	case err != nil:
		return nil, failed(ctx, peer.Addr, true, err)
	}
	result, err := read(res, answer)
	if err != nil {
		err = answered(peer.Addr, res, err)
	}
	return result, err
}

// answered adds to an error what is known of the answer that it was found in.
func answered(addr string, res *httpmsg.Response, err error) error {
	if service := (*ServiceError)(nil); !errors.As(err, &service) {
		err = &NodeError{Addr: addr, Sent: true, Status: res.Status, Err: err}
	}
	if after := RetryAfter(res.Header, time.Now()); after > 0 {
		err = &LaterError{after, err}
	}
	return err
}

// read finds the result in an answer of any status.
func read(f form, media string, res *httpmsg.Response, body []byte) ([]byte, error) {
	if res.Status == http.StatusOK {
		return f.result(media, res.Header, body)
	}
	if e := headerError(res.Header); e != nil {
		return nil, e
	}
	if e := bodyError(body); e != nil {
		return nil, e
	}
	return nil, fmt.Errorf("answered with status %d: %s", res.Status, excerpt(body))
}
