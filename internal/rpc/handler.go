package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/route"
	"github.com/micro/sidecar/internal/socket"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
)

// Handler answers calls that come over HTTP. Its fields are set before first
// use and not changed. It writes results only: errors are returned.
type Handler struct {
	// Namespace stands in front of the service that a path names.
	Namespace string
	Caller    *Caller
	// Proxy gets the requests for services that are plain HTTP, as they came.
	Proxy httpmsg.Handler
	// MaxBody is the largest request body, and the largest message of a stream,
	// in bytes.
	MaxBody int64
	// Explain is the table from errors to what a client is told, for those that
	// come when a stream has begun.
	Explain func(error) transport.ServiceError
	// Streams are the calls under way that do not end by themselves.
	Streams *streams.Set
}

// plainProtocol marks, as protocol in the metadata, the nodes of a service
// that speaks plain HTTP.
const plainProtocol = "http"

// Serve answers a request to an RPC path.
func (h *Handler) Serve(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	service, method, named := route.RPC(h.Namespace, r.Path())
	timeout, terr := timeoutOf(r)
	found, lerr := h.look(ctx, service, named, timeout)
	if h.isPlain(ctx, r, service, found, timeout) {
		return h.Proxy.Serve(ctx, r, w)
	}
	if !named {
		return httpmsg.Errorf(http.StatusNotFound, "path %s names no method: /[service]/[method] was expected", r.Path())
	}
	isSocket := socket.WantedBy(r)
	if r.Method != http.MethodPost && !isSocket {
		return notAllowed(r)
	}
	said := r.Header.Get("Content-Type")
	isStream := wantsStream(r)
	media, ok := transport.MediaType(said)
	switch {
	case !ok && !isSocket && !isNDJSON(said):
		return httpmsg.Errorf(http.StatusUnsupportedMediaType, "content type %q is neither JSON nor protobuf (application/json, application/protobuf)", said)
	case isStream && media == transport.Protobuf:
		return httpmsg.Errorf(http.StatusUnsupportedMediaType, "a stream of lines is JSON (%s); protobuf messages stream over a WebSocket", NDJSON)
	case terr != nil:
		return terr
	case lerr != nil:
		return lerr
	}
	call := Request{
		Service: service, Method: method, Key: h.Caller.Balancer.Key(r),
		ContentType: media, Header: r.Identify(r.Header), Timeout: timeout, Account: r.Account,
	}
	switch {
	case isSocket:
		return h.serveSocket(ctx, call, w, r)
	case isNDJSON(said):
		return h.serveStream(ctx, call, h.lines(r), w)
	}
	// What the client takes for its body is its own time.
	body, err := h.body(r)
	if err != nil {
		return err
	}
	if isStream {
		return h.serveStream(ctx, call, once(body), w)
	}
	call.Body = body
	result, err := h.Caller.Call(ctx, call)
	if err != nil {
		return err
	}
	return answer(w, spelling(said, media), result)
}

// look finds the service within the call's timeout.
func (h *Handler) look(ctx context.Context, service string, named bool, timeout time.Duration) (*discovery.Service, error) {
	if !named {
		return nil, nil
	}
	limited := within(ctx, h.Caller.timeout(timeout))
	defer limited.end()
	return h.Caller.lookup(limited, service)
}

// isPlain reports whether the request is for a plain HTTP service: the one that
// the proxy finds in the path, when no other answers to its RPC reading.
func (h *Handler) isPlain(ctx context.Context, r *httpmsg.Request, service string, found *discovery.Service, timeout time.Duration) bool {
	if h.Proxy == nil || found != nil && !allPlain(found) {
		return false
	}
	name, ok := route.Proxy(h.Namespace, r.Path())
	if !ok {
		return false
	}
	if name != service {
		if found != nil {
			return false // the proxy would not take it for that service
		}
		// An error here is that of an unknown service, told for the RPC reading.
		found, _ = h.look(ctx, name, true, timeout)
	}
	return allPlain(found)
}

// allPlain reports whether s has nodes and all of them are plain HTTP.
func allPlain(s *discovery.Service) bool {
	if s == nil || len(s.Nodes) == 0 {
		return false
	}
	for _, n := range s.Nodes {
		if n.Metadata["protocol"] != plainProtocol {
			return false
		}
	}
	return true
}

// body reads the request's body.
func (h *Handler) body(r *httpmsg.Request) ([]byte, error) {
	b, err := transport.ReadLimited(r.Body, r.Length, h.MaxBody)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, transport.ErrTooLarge):
		return nil, httpmsg.Errorf(http.StatusRequestEntityTooLarge, "the request's body is larger than %d bytes (--max_body_size)", h.MaxBody)
	}
	return nil, httpmsg.BodyError(err)
}

// notAllowed refuses every method but POST.
func notAllowed(r *httpmsg.Request) error {
	return &httpmsg.Error{
		Status: http.StatusMethodNotAllowed, Allow: http.MethodPost,
		Detail: fmt.Sprintf("method %s is not allowed, a call is a POST", r.Method),
	}
}

// timeoutOf reads the Timeout field: a duration with its unit, or nanoseconds
// as go-micro sends them. 0 means there is none.
func timeoutOf(r *httpmsg.Request) (time.Duration, error) {
	text := strings.TrimSpace(r.Header.Get("Timeout"))
	if text == "" {
		return 0, nil
	}
	ns, err := strconv.ParseInt(text, 10, 64)
	d := time.Duration(ns)
	if err != nil {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d <= 0 {
		return 0, httpmsg.Errorf(http.StatusBadRequest, "header Timeout is %q: a positive duration was expected, like 500ms, or nanoseconds", text)
	}
	return d, nil
}

// spelling returns the content type of the answer: the client's own spelling
// of protobuf, without parameters.
func spelling(said, media string) string {
	if media == transport.JSON {
		return media
	}
	base, _, _ := strings.Cut(said, ";")
	return strings.TrimSpace(base)
}

// answer sends a result. Nothing of the node's header is in it.
func answer(w httpmsg.ResponseWriter, contentType string, result []byte) error {
	header := httpmsg.Header{{Name: "Content-Type", Value: contentType}, httpmsg.Date()}
	if err := w.Head(http.StatusOK, header, int64(len(result))); err != nil {
		return httpmsg.ErrAborted
	}
	if _, err := w.Write(result); err != nil {
		return httpmsg.ErrAborted
	}
	return nil
}
