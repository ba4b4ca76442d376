package server

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/micro/sidecar/internal/httpmsg"
)

// recorderKey is where a request's context has its recorder, behind whatever
// middleware wraps it in.
type recorderKey struct{}

// wrap puts middleware in front of the handlers, the first one outermost.
func (e *entrance) wrap(middleware []func(http.Handler) http.Handler) {
	if len(middleware) == 0 {
		return
	}
	e.chain = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, ok := r.Context().Value(recorderKey{}).(*recorder)
		if !ok {
			panic("middleware gave the request a context that does not come from the request's own")
		}
		e.serve(rec, w, r)
	})
	for _, around := range slices.Backward(middleware) {
		e.chain = around(e.chain)
	}
}

// through sends a request through the middleware. It gets a copy: net/http
// looks at its own again.
func (e *entrance) through(rec *recorder, r *http.Request) {
	rec.before = &before{header: r.Header.Clone(), uri: r.RequestURI}
	if r.URL != nil {
		rec.before.url = *r.URL
	}
	r = r.Clone(context.WithValue(r.Context(), recorderKey{}, rec))
	if rec.body != nil {
		r.Body = rec.body
	}
	e.chain.ServeHTTP(rec, r)
}

// before is a request as it came to the middleware: what that leaves alone goes
// on byte for byte, in its order and spelling.
type before struct {
	header http.Header
	url    url.URL
	uri    string
}

// redirected reports whether the middleware changed the target.
func (b *before) redirected(r *http.Request) bool {
	return r.URL != nil && (r.RequestURI != b.uri || r.URL.String() != b.url.String())
}

// edit makes the middleware's changes to the header as it came.
func (b *before) edit(h httpmsg.Header, now http.Header) httpmsg.Header {
	names := maps.Clone(b.header)
	maps.Copy(names, now)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if slices.Equal(b.header[name], now[name]) {
			continue
		}
		h.Del(name)
		for _, value := range now[name] {
			h.Add(name, value)
		}
	}
	return h
}
