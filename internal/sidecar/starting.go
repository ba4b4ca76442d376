package sidecar

import (
	"context"
	"net/http"

	"github.com/micro/sidecar/internal/api"
	"github.com/micro/sidecar/internal/httpmsg"
)

// starting answers while the engines are being connected: the process lives,
// and nothing else can be had yet.
type starting struct{}

func (starting) refusal() error {
	return httpmsg.Errorf(http.StatusServiceUnavailable, "the sidecar is starting: its engines are not connected yet")
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
