package cli

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/micro/sidecar/internal/discovery"
)

// mute answers with a stream of events that says nothing until it is cut.
type mute struct{}

func (mute) RoundTrip(r *http.Request) (*http.Response, error) {
	body, cut := io.Pipe()
	context.AfterFunc(r.Context(), func() { _ = cut.CloseWithError(r.Context().Err()) })
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body, Request: r,
	}, nil
}

func TestAWatchThatHearsNothingSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProxied(&proxyURL{url: &url.URL{Scheme: "http", Host: "sidecar.test"}}, showing{})
		p.http.Transport = mute{}
		err := p.Watch(t.Context(), func() {}, func(discovery.Change) error { return nil })
		if err == nil || !strings.HasSuffix(err.Error(), "lost: nothing was heard from it for 1m0s") {
			t.Errorf("error %v", err)
		}
	})
}
