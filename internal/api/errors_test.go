package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
)

func TestEveryErrorHasItsStatus(t *testing.T) {
	node := &transport.NodeError{Err: errors.New("connection refused")}
	for name, test := range map[string]struct {
		err  error
		want int
	}{
		"a refusal":                      {httpmsg.Errorf(415, "no"), 415},
		"a refusal, wrapped":             {fmt.Errorf("read: %w", httpmsg.Errorf(413, "no")), 413},
		"an unknown service":             {fmt.Errorf("get x: %w", registry.ErrNotFound), 404},
		"an engine that is away":         {&discovery.EngineError{Err: errors.New("refused")}, 503},
		"an engine that ran out of time": {&discovery.EngineError{Err: context.DeadlineExceeded}, 503},
		"a message that is too large":    {fmt.Errorf("publish: %w", broker.ErrTooLarge), 413},
		"a broker that was closed":       {broker.ErrClosed, 503},
		"a stream that was ended":        {streams.ErrStopping, 503},
		"a node that failed":             {node, 502},
		"a node that ran out of time":    {&transport.NodeError{Err: context.DeadlineExceeded}, 504},
		"a client that went away":        {fmt.Errorf("call: %w", context.Canceled), 499},
		"anything else":                  {errors.New("surprise"), 500},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Fail(w, httptest.NewRequest("GET", "/registry", nil), test.err)
			if w.Code != test.want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("status %d, header %v, want %d", w.Code, w.Header(), test.want)
			}
			if detail(t, w.Code, w.Body.Bytes()) == "" {
				t.Error("no detail")
			}
			var data answer
			if err := Refuse(nil, &data, test.err); err != nil || data.status != w.Code || string(data.body) != w.Body.String() {
				t.Errorf("the data plane answers %d %s (%v), the own paths %d %s", data.status, data.body, err, w.Code, w.Body)
			}
		})
	}
}

func TestAServicesOwnErrorIsPassedOn(t *testing.T) {
	said := &transport.ServiceError{ID: "go.micro.srv.foo", Code: 409, Detail: "taken", Status: "Conflict"}
	w := httptest.NewRecorder()
	Fail(w, httptest.NewRequest("GET", "/registry", nil), fmt.Errorf("call: %w", said))
	const want = `{"id":"go.micro.srv.foo","code":409,"detail":"taken","status":"Conflict"}`
	if w.Code != 409 || w.Body.String() != want {
		t.Errorf("answer %d %s, want %s", w.Code, w.Body, want)
	}
}

func TestAllowStandsInTheHeader(t *testing.T) {
	var data answer
	if err := Refuse(nil, &data, &httpmsg.Error{Status: http.StatusMethodNotAllowed, Detail: "no", Allow: "POST"}); err != nil {
		t.Fatal(err)
	}
	if data.status != 405 || data.header.Get("Allow") != "POST" {
		t.Errorf("answer %d %v", data.status, data.header)
	}
}

func TestARefusalThatCannotBeSentCutsTheConnection(t *testing.T) {
	if err := Refuse(nil, &answer{broken: true}, errors.New("x")); !errors.Is(err, httpmsg.ErrAborted) {
		t.Errorf("error %v, want ErrAborted", err)
	}
}
