package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/socket"
	"github.com/micro/sidecar/internal/transport"
)

// envelope is what a request to /rpc says.
type envelope struct {
	Service string          `json:"service"`
	Method  string          `json:"method"`
	Address string          `json:"address"`
	Request json.RawMessage `json:"request"`
}

const formType = "application/x-www-form-urlencoded"

// ServeRPC answers a request to /rpc: a form, or a JSON object, with service
// (its full name), method, request and optionally address. The answer is JSON.
// Of a stream of requests, NDJSON or a WebSocket, these stand in the query.
func (h *Handler) ServeRPC(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	isSocket := socket.WantedBy(r)
	if r.Method != http.MethodPost && !isSocket {
		return notAllowed(r)
	}
	timeout, err := timeoutOf(r)
	if err != nil {
		return err
	}
	isLines := !isSocket && isNDJSON(r.Header.Get("Content-Type"))
	var e envelope
	if isLines || isSocket {
		e, err = parseForm("", query(r))
	} else {
		e, err = h.envelope(r)
	}
	if err != nil {
		return err
	}
	switch {
	case e.Service == "":
		return httpmsg.Errorf(http.StatusBadRequest, "service is missing: the full name of a service was expected")
	case e.Method == "":
		return httpmsg.Errorf(http.StatusBadRequest, "method is missing: a method like Say.Hello was expected")
	}
	call := Request{
		Service: e.Service, Method: e.Method, Key: h.Caller.Balancer.Key(r), Address: e.Address, AnyAddress: r.Local(),
		ContentType: transport.JSON, Header: r.Identify(r.Header), Body: e.Request, Timeout: timeout, Account: r.Account,
	}
	switch {
	case isSocket:
		return h.serveSocket(ctx, call, w, r)
	case isLines:
		return h.serveStream(ctx, call, h.lines(r), w)
	case wantsStream(r):
		return h.serveStream(ctx, call, once(e.Request), w)
	}
	result, err := h.Caller.Call(ctx, call)
	if err != nil {
		return err
	}
	return answer(w, transport.JSON, result)
}

// envelope reads the body, and of a form the query too, as in 2017.
func (h *Handler) envelope(r *httpmsg.Request) (envelope, error) {
	said := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(said)
	isJSON := media == transport.JSON
	if said != "" && (err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) || !isJSON && media != formType) {
		return envelope{}, httpmsg.Errorf(http.StatusUnsupportedMediaType, "content type %q is neither a form (%s) nor JSON (%s)", said, formType, transport.JSON)
	}
	body, err := h.body(r)
	if err != nil {
		return envelope{}, err
	}
	// Without a content type a body is JSON, as on the RPC paths.
	if isJSON || said == "" && len(body) > 0 {
		return parseJSON(body)
	}
	return parseForm(string(body), query(r))
}

// query is what stands behind the question mark of the request's target.
func query(r *httpmsg.Request) string {
	_, query, _ := strings.Cut(r.Target, "?")
	return query
}

// parseJSON reads the JSON form; its request is JSON, or a string holding JSON.
func parseJSON(body []byte) (envelope, error) {
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		wrong := (*json.UnmarshalTypeError)(nil)
		switch {
		case !errors.As(err, &wrong):
			return envelope{}, httpmsg.Errorf(http.StatusBadRequest, `the request's body is not {"service","method","request"} in JSON: %v`, err)
		case wrong.Field == "":
			return envelope{}, httpmsg.Errorf(http.StatusBadRequest, `the request's body is a JSON %s: an object {"service","method","request"} was expected`, wrong.Value)
		}
		return envelope{}, httpmsg.Errorf(http.StatusBadRequest, "%s is a JSON %s: a string was expected", wrong.Field, wrong.Value)
	}
	if len(e.Request) > 0 && e.Request[0] == '"' {
		var text string
		if err := json.Unmarshal(e.Request, &text); err != nil {
			return envelope{}, httpmsg.Errorf(http.StatusBadRequest, "request is a malformed string: %v", err)
		}
		e.Request = json.RawMessage(text)
	}
	return e, checkRequest(e)
}

// parseForm reads the form; what stands in it goes before what stands in the query.
func parseForm(body, query string) (envelope, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return envelope{}, httpmsg.Errorf(http.StatusBadRequest, "the request's body is a malformed form: %v", err)
	}
	asked, err := url.ParseQuery(query)
	if err != nil {
		return envelope{}, httpmsg.Errorf(http.StatusBadRequest, "the request's query is malformed: %v", err)
	}
	get := func(key string) string {
		if form.Has(key) {
			return form.Get(key)
		}
		return asked.Get(key)
	}
	e := envelope{
		Service: get("service"), Method: get("method"), Address: get("address"),
		Request: json.RawMessage(get("request")),
	}
	return e, checkRequest(e)
}

// checkRequest refuses a request that is not JSON; an empty one is {}.
func checkRequest(e envelope) error {
	if len(strings.TrimSpace(string(e.Request))) > 0 && !json.Valid(e.Request) {
		return httpmsg.Errorf(http.StatusBadRequest, "request holds malformed JSON")
	}
	return nil
}
