package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/socket"
	"github.com/micro/sidecar/registry"
)

// registry answers /registry.
func (a *API) registry(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPost:
		a.register(w, r)
	case r.Method == http.MethodDelete:
		a.deregister(w, r)
	case !allow(w, r, http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete):
	case r.Method == http.MethodGet && socket.Wanted(r):
		a.watchSocket(w, r)
	case r.Method == http.MethodGet && strings.Contains(r.Header.Get("Accept"), "text/event-stream"):
		a.watchEvents(w, r)
	case r.URL.Query().Get("service") != "": // an empty one lists, as in 2017
		a.getService(w, r)
	default:
		a.listServices(w, r)
	}
}

func (a *API) register(w http.ResponseWriter, r *http.Request) {
	ttl, err := parseTTL(r)
	if err != nil {
		Fail(w, r, err)
		return
	}
	body, err := a.body(w, r)
	if err != nil {
		Fail(w, r, err)
		return
	}
	s, err := registry.DecodeService(body)
	if err != nil {
		Fail(w, r, httpmsg.Errorf(http.StatusBadRequest, "%v", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), engineTimeout)
	defer cancel()
	if err := a.Discovery.Register(ctx, s, ttl); err != nil {
		Fail(w, r, &discovery.EngineError{Err: err})
	}
}

func (a *API) deregister(w http.ResponseWriter, r *http.Request) {
	body, err := a.body(w, r)
	if err != nil {
		Fail(w, r, err)
		return
	}
	s, err := registry.DecodeNodes(body)
	if err != nil {
		Fail(w, r, httpmsg.Errorf(http.StatusBadRequest, "%v", err))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), engineTimeout)
	defer cancel()
	if err := a.Discovery.Withdraw(ctx, s); err != nil {
		Fail(w, r, &discovery.EngineError{Err: err})
	}
}

// parseTTL reads ?ttl=; 0 without it.
func parseTTL(r *http.Request) (time.Duration, error) {
	query := r.URL.Query()
	if !query.Has("ttl") {
		return 0, nil
	}
	given := query.Get("ttl")
	ttl, err := time.ParseDuration(given)
	if err != nil || ttl <= 0 {
		return 0, httpmsg.Errorf(http.StatusBadRequest, "ttl: expected a positive duration with a unit like 10s or 1m, got %q", given)
	}
	return ttl, nil
}

// body reads a request's body up to the limit.
func (a *API) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := httpmsg.Errorf(http.StatusRequestEntityTooLarge, "the request's body is larger than %d bytes (--max_body_size)", a.MaxBodySize)
	if r.ContentLength > a.MaxBodySize {
		return nil, tooLarge // what is announced need not be sent
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, a.MaxBodySize))
	if limit := (*http.MaxBytesError)(nil); errors.As(err, &limit) {
		return nil, tooLarge
	}
	if err != nil {
		return nil, httpmsg.Errorf(http.StatusBadRequest, "the body could not be read: %v", err)
	}
	return body, nil
}

func (a *API) listServices(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	names, err := a.Discovery.List(ctx)
	if err != nil {
		Fail(w, r, err)
		return
	}
	type item struct {
		Name string `json:"name"`
	}
	items := make([]item, len(names))
	for i, name := range names {
		items[i].Name = name
	}
	writeJSON(w, r, items)
}

func (a *API) getService(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	name := query.Get("service")
	asVersions := false
	switch v := query.Get("versions"); v {
	case "", "false":
	case "true":
		asVersions = true
	default:
		Fail(w, r, httpmsg.Errorf(http.StatusBadRequest, "versions: expected true or false, got %q", v))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	versions, err := a.Discovery.Get(ctx, name)
	switch {
	case errors.Is(err, registry.ErrNotFound):
		Fail(w, r, httpmsg.Errorf(http.StatusNotFound, "service %s not found", name))
	case err != nil:
		Fail(w, r, err)
	case asVersions:
		for i := range versions {
			versions[i] = registry.Normalize(versions[i])
		}
		writeJSON(w, r, versions)
	default:
		writeJSON(w, r, registry.Normalize(registry.Merge(name, versions)))
	}
}
