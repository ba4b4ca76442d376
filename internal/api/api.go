// Package api is the sidecar's HTTP interface: its own exact paths, the choice
// between RPC and proxy for all others, who may ask, and the one table from
// errors to statuses. What the paths do is in the packages it calls.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/monitor"
	"github.com/micro/sidecar/internal/rpc"
	"github.com/micro/sidecar/internal/streams"
)

const (
	// engineTimeout bounds what a change waits for a registry, readTimeout a
	// question, which may have an older answer.
	engineTimeout = 5 * time.Second
	readTimeout   = 2 * time.Second
)

// API answers the sidecar's requests. Its fields are set before first use.
type API struct {
	Discovery *discovery.Discovery
	RPC       *rpc.Handler
	Proxy     httpmsg.Handler
	Messaging http.Handler
	// Health probes the application; nil when it has no health check.
	Health *health.Prober
	// Ready says why the sidecar is not ready, or nil.
	Ready func(context.Context) error
	// Monitor tells about the sidecar. Metrics answers /metrics, and Page is what
	// people see at /stats; without it the path is not the sidecar's own.
	Monitor *monitor.Monitor
	Metrics http.Handler
	Page    http.Handler
	// ProxyByDefault sends requests to the proxy unless they ask for RPC.
	ProxyByDefault bool
	MaxBodySize    int64
	Guard          Guard
	// Tokens, when not nil, are what a request must show one of.
	Tokens *auth.Tokens

	watches streams.Set
	viewers atomic.Int64 // streams of /stats
}

// Own returns the handler of one of the sidecar's own paths, or nil when path
// (as it came, without the query) belongs to the data plane.
func (a *API) Own(path string) http.Handler {
	h := a.own(path)
	if h == nil {
		return nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.Guard.admitOwn(w, r) && a.admitOwnToken(w, r, path) {
			h(w, r)
		}
	})
}

func (a *API) own(path string) http.HandlerFunc {
	switch path {
	case "/registry":
		return a.registry
	case "/broker":
		return a.Messaging.ServeHTTP
	case "/health":
		return a.health
	case "/livez":
		return live
	case "/readyz":
		return a.ready
	case "/metrics":
		return a.metrics
	case "/stats":
		if a.Page != nil {
			return a.stats
		}
	}
	return nil
}

// Admin returns the handler of one of the sidecar's own paths for those who need
// not be guarded against.
func (a *API) Admin(path string) http.Handler { return a.own(path) }

// Serve answers a request of the data plane. The only error it returns is
// [httpmsg.ErrAborted].
func (a *API) Serve(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	handler, guarded, err := a.choose(r)
	if (guarded || a.Guard.Proxied) && err == nil {
		var answered bool
		if w, answered, err = a.Guard.admit(r, w); answered {
			return err
		}
	}
	if err == nil {
		w, err = a.admitToken(r, w)
	}
	if err == nil {
		err = handler.Serve(ctx, r, w)
	}
	if err == nil || errors.Is(err, httpmsg.ErrAborted) {
		return err
	}
	return Refuse(r, w, err)
}

// choose returns the handler of a request, and whether the guard stands before
// it: what is proxied is the node's own affair.
func (a *API) choose(r *httpmsg.Request) (handler httpmsg.Handler, guarded bool, err error) {
	if r.Method == http.MethodConnect { // its target is no path
		return nil, false, httpmsg.Errorf(http.StatusNotImplemented, "CONNECT: the sidecar makes no tunnels")
	}
	if r.Path() == "/rpc" {
		return endpoint{a.RPC}, true, nil
	}
	isRPC := !a.ProxyByDefault
	switch way := r.Header.Get("Micro-Handler"); way {
	case "":
	case "rpc":
		isRPC = true
	case "proxy":
		isRPC = false
	default:
		return nil, true, httpmsg.Errorf(400, "Micro-Handler: expected rpc or proxy, got %q", way)
	}
	if isRPC {
		return a.RPC, true, nil
	}
	return a.Proxy, false, nil
}

// endpoint is the handler of /rpc.
type endpoint struct{ *rpc.Handler }

func (e endpoint) Serve(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
	return e.ServeRPC(ctx, r, w)
}

// Stop ends the watch streams, with a close frame or the end of the stream,
// and waits for them until ctx ends.
func (a *API) Stop(ctx context.Context) error {
	return a.watches.Stop(ctx, 0)
}

func (a *API) health(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	if a.Health == nil {
		text(w, "ok\n")
		return
	}
	switch result := a.Health.Probe(r.Context()); {
	case result.Err == nil:
		text(w, "ok\n")
	case result.Status >= 200 && result.Status <= 599: // what can be an answer here, too
		Fail(w, r, httpmsg.Errorf(result.Status, "%v", result.Err))
	default:
		Fail(w, r, httpmsg.Errorf(http.StatusServiceUnavailable, "%v", result.Err))
	}
}

func live(w http.ResponseWriter, r *http.Request) {
	if allow(w, r, http.MethodGet, http.MethodHead) {
		text(w, "ok\n")
	}
}

func (a *API) ready(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	if err := a.Ready(r.Context()); err != nil {
		Fail(w, r, httpmsg.Errorf(http.StatusServiceUnavailable, "%v", err))
		return
	}
	text(w, "ok\n")
}

func (a *API) metrics(w http.ResponseWriter, r *http.Request) {
	if allow(w, r, http.MethodGet, http.MethodHead) {
		a.Metrics.ServeHTTP(w, r)
	}
}

// allow answers 405 when the request's method is none of methods.
func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	Fail(w, r, &httpmsg.Error{
		Status: http.StatusMethodNotAllowed, Allow: strings.Join(methods, ", "),
		Detail: "method " + r.Method + " is not allowed here",
	})
	return false
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(s))
}

func writeJSON(w http.ResponseWriter, r *http.Request, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		Fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}
