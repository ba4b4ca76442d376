package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

// ID is the id in the sidecar's own errors.
const ID = "go.micro.sidecar"

// statusClientGone is nginx's status for a client that did not wait for its
// answer; nobody but the statistics sees it.
const statusClientGone = 499

// classify is the one table from an error to what the client is told: a
// go-micro error and, with 405, the methods allowed. The order matters: an
// engine that ran out of time is unavailable, a node that did is a timeout.
func classify(err error) (e transport.ServiceError, allow string) {
	var (
		service *transport.ServiceError
		refusal *httpmsg.Error
		engine  *discovery.EngineError
		node    *transport.NodeError
	)
	switch {
	case errors.As(err, &service):
		return *service, ""
	case errors.As(err, &refusal):
		return own(refusal.Status, refusal.Detail), refusal.Allow
	case errors.Is(err, registry.ErrReadOnly):
		return own(http.StatusNotImplemented, unwrapEngine(err).Error()), ""
	case errors.As(err, &engine):
		return own(http.StatusServiceUnavailable, err.Error()), ""
	case errors.Is(err, registry.ErrNotFound):
		return own(http.StatusNotFound, err.Error()), ""
	case errors.Is(err, broker.ErrTooLarge):
		return own(http.StatusRequestEntityTooLarge, err.Error()), ""
	case errors.Is(err, broker.ErrClosed), errors.Is(err, streams.ErrStopping):
		return own(http.StatusServiceUnavailable, err.Error()), ""
	case errors.Is(err, context.DeadlineExceeded):
		return own(http.StatusGatewayTimeout, "the call ran out of time: "+err.Error()), ""
	case errors.Is(err, context.Canceled):
		return own(statusClientGone, "the client went away"), ""
	case errors.As(err, &node):
		return own(http.StatusBadGateway, err.Error()), ""
	}
	return own(http.StatusInternalServerError, err.Error()), ""
}

// unwrapEngine takes off what says that the registry cannot be asked.
func unwrapEngine(err error) error {
	if engine, ok := errors.AsType[*discovery.EngineError](err); ok {
		return engine.Err
	}
	return err
}

// Explain returns what a client is told of an error that comes when its answer
// has begun.
func Explain(err error) transport.ServiceError {
	e, _ := classify(err)
	return e
}

// own is an error of the sidecar itself.
func own(status int, detail string) transport.ServiceError {
	return transport.ServiceError{ID: ID, Code: status, Detail: detail, Status: http.StatusText(status)}
}

// encode returns what the client, which may be a gRPC client, is answered with:
// status, header, body.
func encode(grpc bool, err error) (int, httpmsg.Header, []byte) {
	if grpc {
		return http.StatusOK, grpcHead(err), nil
	}
	e, allow := classify(err)
	body, jerr := json.Marshal(e)
	if jerr != nil { // strings and an int: cannot fail
		body = []byte("{}")
	}
	h := httpmsg.Header{{Name: "Content-Type", Value: "application/json"}}
	if allow != "" {
		h.Add("Allow", allow)
	}
	if e.ID == ID && e.Code == http.StatusUnauthorized { // RFC 9110 section 15.5.2
		h.Add("WWW-Authenticate", "Bearer")
	}
	if refusal := (*httpmsg.Error)(nil); errors.As(err, &refusal) {
		if refusal.RetryAfter > 0 {
			h.Add("Retry-After", strconv.FormatInt(int64((refusal.RetryAfter+time.Second-1)/time.Second), 10))
		}
		if refusal.Challenge != "" {
			h.Add("WWW-Authenticate", refusal.Challenge)
		}
	}
	return e.Code, h, body
}

// Fail answers a net/http request with err.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	status, header, body := encode(isGRPC(r.ProtoMajor == 2, r.Header.Get("Content-Type")), err)
	for _, f := range header {
		w.Header().Del(f.Name)
	}
	for _, f := range header {
		w.Header().Add(f.Name, f.Value)
	}
	w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = w.Write(body) // a client that is gone needs no answer
	}
}

// Refuse answers a request that never came to a handler, or whose handler
// failed; r is nil when it could not be read.
func (a *API) Refuse(r *httpmsg.Request, w httpmsg.ResponseWriter, err error) error {
	return Refuse(r, w, err)
}

// Refuse answers a request of the data plane with err; r is nil when it could
// not be read.
func Refuse(r *httpmsg.Request, w httpmsg.ResponseWriter, err error) error {
	status, header, body := encode(r != nil && isGRPC(r.HTTP2, r.Header.Get("Content-Type")), err)
	if err := w.Head(status, append(header, httpmsg.Date()), int64(len(body))); err != nil {
		return httpmsg.ErrAborted
	}
	if len(body) == 0 {
		return nil
	}
	if _, err := w.Write(body); err != nil {
		return httpmsg.ErrAborted
	}
	return nil
}
