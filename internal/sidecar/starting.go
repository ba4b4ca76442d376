package sidecar

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/micro/sidecar/internal/api"
	"github.com/micro/sidecar/internal/httpmsg"
)

// starting answers while the engines are being connected: the process lives,
// and nothing else can be had yet.
type starting struct{ awaited *awaited }

// awaited is what the start waits for, in words. The zero value waits for
// nothing in particular.
type awaited struct{ what atomic.Pointer[string] }

func (a *awaited) set(what string) { a.what.Store(&what) }

func (s starting) refusal() error {
	what := "its engines are not connected yet"
	if p := s.awaited.what.Load(); p != nil {
		what = *p
	}
	return httpmsg.Errorf(http.StatusServiceUnavailable, "the sidecar is starting: %s", what)
}

// Own answers the sidecar's own paths.
func (s starting) Own(path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path == "/livez" {
			_, _ = w.Write([]byte("ok\n"))
			return
		}
		api.Fail(w, r, s.refusal())
	})
}

// Serve is never reached: Own answers every path.
func (s starting) Serve(context.Context, *httpmsg.Request, httpmsg.ResponseWriter) error {
	return httpmsg.ErrAborted
}

// Refuse answers a request that never came to a handler.
func (starting) Refuse(r *httpmsg.Request, w httpmsg.ResponseWriter, err error) error {
	return api.Refuse(r, w, err)
}
