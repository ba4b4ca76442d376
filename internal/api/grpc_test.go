package api

import (
	"context"
	"errors"
	"net/http/httptest"
	"testing"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

func TestWhatGRPCClientsAreTold(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		status  string
		message string
	}{
		"a malformed request":         {httpmsg.Errorf(400, "no"), "13", "no"},
		"no token":                    {httpmsg.Errorf(401, "no"), "16", "no"},
		"not allowed":                 {httpmsg.Errorf(403, "no"), "7", "no"},
		"a path that names nothing":   {httpmsg.Errorf(404, "no"), "12", "no"},
		"a service that is not there": {&httpmsg.Error{Status: 404, Detail: "service x not found", Err: registry.ErrNotFound}, "14", "service x not found"},
		"too large":                   {httpmsg.Errorf(413, "no"), "8", "no"},
		"too many":                    {httpmsg.Errorf(429, "no"), "8", "no"},
		"another type":                {httpmsg.Errorf(415, "no"), "2", "no"},
		"no usable node":              {httpmsg.Errorf(503, "no"), "14", "no"},
		"an engine that is away":      {&discovery.EngineError{Err: errors.New("refused")}, "14", (&discovery.EngineError{Err: errors.New("refused")}).Error()},
		"a node that failed":          {&transport.NodeError{Addr: "a:1", Err: errors.New("100% broken\n…")}, "14", "node a:1: 100%25 broken%0A%E2%80%A6"},
		"out of time":                 {context.DeadlineExceeded, "4", "the call ran out of time: context deadline exceeded"},
		"a client that is gone":       {context.Canceled, "1", "the client went away"},
		"anything else":               {errors.New("surprise"), "13", "surprise"},
	} {
		t.Run(name, func(t *testing.T) {
			var sent answer
			r := &httpmsg.Request{HTTP2: true, Header: httpmsg.Header{{Name: "content-type", Value: "application/grpc"}}}
			if err := Refuse(r, &sent, test.err); err != nil {
				t.Fatal(err)
			}
			if sent.status != 200 || len(sent.body) > 0 || sent.header.Get("Content-Type") != "application/grpc" ||
				sent.header.Get("Grpc-Status") != test.status || sent.header.Get("Grpc-Message") != test.message {
				t.Errorf("answer %d %v %q, want status %s, message %q", sent.status, sent.header, sent.body, test.status, test.message)
			}
			own := httptest.NewRequest("POST", "/rpc", nil)
			own.ProtoMajor = 2
			own.Header.Set("Content-Type", "application/grpc")
			w := httptest.NewRecorder()
			Fail(w, own, test.err)
			if w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Grpc-Status") != test.status || w.Header().Get("Grpc-Message") != test.message {
				t.Errorf("by net/http: %d %v %q", w.Code, w.Header(), w.Body)
			}
		})
	}
}

func TestWhoIsAGRPCClient(t *testing.T) {
	for kind, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc+json": true,
		"application/grpc; charset=utf-8": true, "Application/GRPC": true,
		"application/grpc-web": false, "application/grpc-web+proto": false, "application/grpcx": false,
		"application/json": false, "": false, "application/grp": false,
	} {
		if isGRPC(true, kind) != want || isGRPC(false, kind) {
			t.Errorf("%q: over HTTP/2 %v, over HTTP/1 %v", kind, isGRPC(true, kind), isGRPC(false, kind))
		}
	}
}

func TestConnectIsRefused(t *testing.T) {
	a := newAPI(t, memory.New())
	a.ProxyByDefault = true
	var sent answer
	r := &httpmsg.Request{Method: "CONNECT", Target: "foo:443"}
	if err := a.Serve(t.Context(), r, &sent); err != nil || sent.status != 501 || detail(t, 501, sent.body) != "CONNECT: the sidecar makes no tunnels" {
		t.Errorf("answer %d %s, %v", sent.status, sent.body, err)
	}
}

// The handlers' errors come to a gRPC client that way, through everything.
func TestServeAnswersGRPC(t *testing.T) {
	a := newAPI(t, memory.New())
	r := &httpmsg.Request{
		Method: "POST", Target: "/pkg.Service/Method", HTTP2: true,
		Header: httpmsg.Header{{Name: "Content-Type", Value: "application/grpc"}, {Name: "Micro-Handler", Value: "soap"}},
	}
	var sent answer
	if err := a.Serve(t.Context(), r, &sent); err != nil || sent.status != 200 || sent.header.Get("Grpc-Status") != "13" {
		t.Errorf("answer %d %v, %v", sent.status, sent.header, err)
	}
	sent = answer{}
	r.HTTP2 = false
	if err := a.Serve(t.Context(), r, &sent); err != nil || sent.status != 400 {
		t.Errorf("over HTTP/1.1: answer %d %v, %v", sent.status, sent.header, err)
	}
}
