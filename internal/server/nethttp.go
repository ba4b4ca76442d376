package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Routes are the two kinds of handlers behind a listener.
type Routes interface {
	// Own returns the handler of one of the sidecar's own exact paths, or nil.
	Own(path string) http.Handler
	// Handler answers everything else, errors included: it returns nil or
	// [httpmsg.ErrAborted].
	httpmsg.Handler
	// Refuse answers a request that never came to a handler, or whose handler
	// panicked; r is nil when it could not be read.
	Refuse(r *httpmsg.Request, w httpmsg.ResponseWriter, err error) error
}

// entrance counts what comes in by both ways, and is the net/http one.
type entrance struct {
	routes  atomic.Pointer[Routes]
	count   func(status int)
	observe func(*Answered) // nil when nobody wants to know
	log     *slog.Logger
	chain   http.Handler // the middleware, nil when there is none

	active   sync.WaitGroup // handlers running under net/http
	requests atomic.Int64   // how many of them answer a request
	upgraded atomic.Int64   // and how many serve an upgraded connection
}

// ServeHTTP sends a request to its handler and counts the answer.
func (e *entrance) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setTLS(r)
	e.active.Add(1)
	defer e.active.Done()
	e.requests.Add(1)
	control := http.NewResponseController(w)
	rec := &recorder{ResponseWriter: w, entrance: e}
	if e.observe != nil {
		rec.account = rec.observed.begin()
	}
	var s *strict // none over HTTP/2
	if s, _ = r.Context().Value(strictKey{}).(*strict); s != nil {
		rec.strict, rec.passed = s, s.take(r.Method, r.RequestURI)
	}
	if r.Body != http.NoBody {
		rec.body = &body{r: r.Body, control: control, length: r.ContentLength, http2: r.ProtoMajor == 2, awaited: awaited(r), strict: s}
		// Without it net/http holds an answer back until it has read on in the
		// request's body.
		_ = control.EnableFullDuplex() // it can be had over HTTP/1.1, and is the rule elsewhere
	}
	defer e.finish(rec, r)
	if e.chain != nil {
		e.through(rec, r)
	} else {
		e.serve(rec, rec, r)
	}
	rec.end()
}

// serve sends a request to its handler; w is rec, or middleware's wrapper of it.
func (e *entrance) serve(rec *recorder, w http.ResponseWriter, r *http.Request) {
	routes := *e.routes.Load()
	target := rec.target(r)
	path, _, _ := strings.Cut(target, "?")
	if own := routes.Own(path); own != nil {
		if rec.body != nil && rec.before == nil {
			r = r.WithContext(r.Context()) // a copy: net/http looks at its own again
			r.Body = rec.body
		}
		own.ServeHTTP(w, r)
		return
	}
	x := newExchange(rec, w, r)
	defer x.end()
	if err := routes.Serve(r.Context(), request(r, target, x), x); err != nil && !rec.hijacked {
		if !r.ProtoAtLeast(1, 1) {
			resetHijacked(x.control)
		}
		panic(http.ErrAbortHandler)
	}
}

// resetHijacked is reset for a connection of net/http's.
func resetHijacked(control *http.ResponseController) {
	if conn, _, err := control.Hijack(); err == nil { // else it is gone already
		reset(conn)
	}
}

// finish counts the answer; a panic is logged, and answered with 500 when
// nothing was written.
func (e *entrance) finish(rec *recorder, r *http.Request) {
	v := recover()
	if v != nil && v != http.ErrAbortHandler { //nolint:errorlint // net/http compares the same way
		e.log.Error("panic while answering a request", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		if v = any(http.ErrAbortHandler); rec.status == 0 && e.apologize(rec, r) == nil {
			v = nil
		}
	}
	if rec.status == 0 && v == nil {
		rec.status = http.StatusOK // what net/http makes of silence
	}
	e.count(rec.status)
	if e.observe != nil {
		rec.observe(r)
	}
	if rec.hijacked {
		e.upgraded.Add(-1)
	} else {
		e.requests.Add(-1)
	}
	if v != nil {
		panic(v)
	}
}

// apologize answers a request whose handler panicked before it did.
func (e *entrance) apologize(rec *recorder, r *http.Request) error {
	clear(rec.Header())
	x := newExchange(rec, rec, r)
	defer x.end()
	err := (*e.routes.Load()).Refuse(request(r, rec.target(r), x), x, httpmsg.Errorf(http.StatusInternalServerError, "internal error"))
	rec.end()
	return err
}

// recorder remembers the status. Unwrap lets http.ResponseController and
// WebSocket upgrades through.
type recorder struct {
	http.ResponseWriter
	entrance *entrance
	body     *body // nil when the request has none
	status   int   // 0 until the head was written
	hijacked bool
	sent     int64 // bytes of the body
	observed observation
	account  *httpmsg.Account // of observed, if anybody wants to know

	before *before // the request as it came to the middleware, nil without
	strict *strict // the connection's reader; nil over HTTP/2
	passed *passed // the request as it came; nil over HTTP/2
}

// target is the request's, in origin form if it has one.
func (r *recorder) target(req *http.Request) string {
	if r.before != nil && r.before.redirected(req) {
		return req.URL.RequestURI()
	}
	if r.passed != nil {
		return originForm(r.passed.Target)
	}
	return originForm(req.RequestURI)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader notes the status. An answer to a request that has not been read
// is the connection's last (RFC 9112 section 9.6): what is still to come must
// not be taken for the next request.
func (r *recorder) WriteHeader(status int) {
	switch {
	case r.status != 0:
	case status == http.StatusSwitchingProtocols:
		r.switched()
	case status >= http.StatusOK:
		r.status = status
		if !r.body.readable() {
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write writes a piece of the answer.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(b)
	r.sent += int64(n)
	return n, err
}

// end completes the answer when some of the request is unread: its body is then
// read for a while.
func (r *recorder) end() {
	if r.hijacked || r.body == nil || r.body.ended.Load() {
		return
	}
	if r.status == 0 {
		r.WriteHeader(http.StatusOK) // what net/http makes of silence
	}
	r.body.finish()
}

// switched notes that the connection is upgraded.
func (r *recorder) switched() {
	if r.strict != nil {
		r.strict.raw()
	}
	r.status, r.hijacked = http.StatusSwitchingProtocols, true
	r.entrance.upgraded.Add(1)
	r.entrance.requests.Add(-1)
}
