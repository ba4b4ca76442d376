package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go-micro.dev/v5/broker"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/metadata"
	mregistry "go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
	mtransport "go-micro.dev/v5/transport"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

// Say is the handler of a real go-micro service.
type Say struct{}

// Hello and Greeting are exported because go-micro wants it.
type Hello struct {
	Name string `json:"name"`
}

// Greeting is the answer.
type Greeting struct {
	Text string            `json:"text"`
	Meta map[string]string `json:"meta,omitempty"`
}

func (*Say) Hello(ctx context.Context, req *Hello, rsp *Greeting) error {
	rsp.Text = "Hello " + req.Name
	if req.Name == "meta" {
		md, _ := metadata.FromContext(ctx)
		rsp.Meta = md
	}
	return nil
}

func (*Say) Proto(_ context.Context, req, rsp *wrapperspb.StringValue) error {
	rsp.Value = "Hello " + req.Value
	return nil
}

func (*Say) Fail(_ context.Context, req *Hello, _ *Greeting) error {
	switch req.Name {
	case "plain":
		return errors.New("no such name")
	case "odd":
		return merrors.New("go.micro.srv.greeter", "odd code", 42)
	}
	return merrors.NotFound("go.micro.srv.greeter", "no %s here", req.Name)
}

func (*Say) ProtoFail(context.Context, *wrapperspb.StringValue, *wrapperspb.StringValue) error {
	return merrors.Forbidden("go.micro.srv.greeter", "not you")
}

func (*Say) Panic(context.Context, *Hello, *Greeting) error { panic("handler gives up") }

func (*Say) Slow(ctx context.Context, _ *Hello, _ *Greeting) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(30 * time.Second):
		return nil
	}
}

// startGoMicro runs a go-micro v5 service with its http transport and returns
// its node as the service itself registered it.
func startGoMicro(t testing.TB) *discovery.Node {
	t.Helper()
	quiet := logger.NewLogger(logger.WithOutput(discard{}))
	reg := mregistry.NewMemoryRegistry(mregistry.Logger(quiet))
	srv := server.NewRPCServer(
		server.Name("go.micro.srv.greeter"), server.Address("127.0.0.1:0"), server.Registry(reg),
		server.Broker(broker.NewMemoryBroker()), server.Transport(mtransport.NewHTTPTransport(mtransport.Logger(quiet))),
		server.WithLogger(quiet),
	)
	if err := srv.Handle(srv.NewHandler(new(Say))); err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	services, err := reg.GetService("go.micro.srv.greeter")
	if err != nil || len(services) != 1 || len(services[0].Nodes) != 1 {
		t.Fatalf("the service is not registered: %v, %v", services, err)
	}
	n := services[0].Nodes[0]
	host, port, err := net.SplitHostPort(n.Address)
	if err != nil {
		t.Fatal(err)
	}
	p, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return discovery.NewNode(registry.Node{ID: n.Id, Address: host, Port: p, Metadata: n.Metadata}, "")
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// forms runs f against the service as it registered itself, and as a node of
// which nothing is known.
func forms(t *testing.T, f func(t *testing.T, c *Client, n *discovery.Node)) {
	n := startGoMicro(t)
	if n.Metadata["protocol"] != "mucp" {
		t.Fatalf("go-micro registers %v, want protocol=mucp", n.Metadata)
	}
	c := newClient(t, Options{})
	t.Run("raw", func(t *testing.T) { f(t, c, n) })
	n.Metadata = nil
	// Without a stream's name go-micro may swallow the second request on a
	// connection (see raw).
	c = newClient(t, Options{PoolSize: -1})
	t.Run("bare", func(t *testing.T) { f(t, c, n) })
}

func TestGoMicroResults(t *testing.T) {
	forms(t, func(t *testing.T, c *Client, n *discovery.Node) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Hello", Body: []byte(`{ "name": "John" }`)})
		if err != nil || string(got) != `{"text":"Hello John"}` {
			t.Errorf("Say.Hello = %s, %v", got, err)
		}
		if got, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Hello"}); err != nil || string(got) != `{"text":"Hello "}` {
			t.Errorf("Say.Hello with an empty body = %s, %v", got, err)
		}
		arg, err := proto.Marshal(wrapperspb.String("John"))
		if err != nil {
			t.Fatal(err)
		}
		for _, ct := range []string{"application/protobuf", "application/proto", "application/x-protobuf"} {
			got, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Proto", ContentType: ct, Body: arg})
			var v wrapperspb.StringValue
			if err != nil || proto.Unmarshal(got, &v) != nil || v.Value != "Hello John" {
				t.Errorf("Say.Proto as %s = %q, %v", ct, got, err)
			}
		}
	})
}

func TestGoMicroMetadata(t *testing.T) {
	forms(t, func(t *testing.T, c *Client, n *discovery.Node) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := c.Call(ctx, n, Call{
			Service: "go.micro.srv.greeter", Method: "Say.Hello", Body: []byte(`{"name":"meta"}`),
			Header: httpmsg.Header{
				{Name: "X-Request-Id", Value: "7"}, {Name: "Authorization", Value: "Basic eA=="},
				{Name: "micro-METHOD", Value: "Say.Fail"}, {Name: "X-Micro-Target", Value: "x"}, {Name: "Micro-Token", Value: "secret"},
				{Name: "Connection", Value: "close, X-Hop"}, {Name: "X-Hop", Value: "1"}, {Name: "Cookie", Value: "a=b"},
			},
		})
		var answer Greeting
		if err != nil || json.Unmarshal(got, &answer) != nil {
			t.Fatalf("Say.Hello = %s, %v", got, err)
		}
		for _, name := range []string{"X-Request-Id", "Authorization", "Cookie"} {
			if answer.Meta[name] == "" {
				t.Errorf("metadata lacks %s: %v", name, answer.Meta)
			}
		}
		for _, name := range []string{"X-Hop", "Connection", "Micro-Token", "X-Micro-Target"} {
			if v, ok := answer.Meta[name]; ok {
				t.Errorf("metadata holds %s: %s", name, v)
			}
		}
	})
}

func TestGoMicroErrors(t *testing.T) {
	forms(t, func(t *testing.T, c *Client, n *discovery.Node) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for _, tt := range []struct {
			name string
			want ServiceError
		}{
			{"John", ServiceError{"go.micro.srv.greeter", 404, "no John here", "Not Found"}},
			{"plain", ServiceError{"go.micro.srv.greeter", 500, "no such name", "Internal Server Error"}},
			{"odd", ServiceError{"go.micro.srv.greeter", 500, "odd code", "Internal Server Error"}},
		} {
			_, err := c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Fail", Body: fmt.Appendf(nil, `{"name":%q}`, tt.name)})
			var got *ServiceError
			if !errors.As(err, &got) || *got != tt.want {
				t.Errorf("Say.Fail %s: %#v, want %+v", tt.name, err, tt.want)
			}
		}
		_, err := c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.ProtoFail", ContentType: Protobuf})
		var got *ServiceError
		if !errors.As(err, &got) || got.Code != 403 || got.Detail != "not you" {
			t.Errorf("Say.ProtoFail: %#v", err)
		}
		if _, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Nothing"}); !errors.As(err, &got) {
			t.Errorf("an unknown method: %v", err)
		}
	})
}

func TestGoMicroThatDoesNotAnswer(t *testing.T) {
	forms(t, func(t *testing.T, c *Client, n *discovery.Node) {
		for _, method := range []string{"Say.Panic", "Say.Slow"} {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			start := time.Now()
			_, err := c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: method})
			if err == nil || time.Since(start) > 8*time.Second {
				t.Errorf("%s: %v after %v", method, err, time.Since(start))
			}
			t.Logf("%s: %v", method, err)
			cancel()
		}
	})
}

// TestGoMicroKeepAlive makes many calls one after another on one connection
// and some at once, errors and content types mixed: none may be swallowed (see
// raw), which would last until the deadline.
func TestGoMicroKeepAlive(t *testing.T) {
	n, c := startGoMicro(t), newClient(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	arg, err := proto.Marshal(wrapperspb.String("John"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 400 {
				name := fmt.Sprintf("w%d-%d", w, i)
				var got []byte
				var err error
				want := "Hello John"
				switch i % 3 {
				case 0:
					got, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Hello", Body: fmt.Appendf(nil, `{"name":%q}`, name)})
					want = "Hello " + name
				case 1:
					got, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Proto", ContentType: Protobuf, Body: arg})
				case 2:
					_, err = c.Call(ctx, n, Call{Service: "go.micro.srv.greeter", Method: "Say.Fail", Body: fmt.Appendf(nil, `{"name":%q}`, name)})
					var e *ServiceError
					if errors.As(err, &e) && e.Detail == "no "+name+" here" {
						continue
					}
				}
				if err != nil || !strings.Contains(string(got), want) {
					t.Errorf("call %d of worker %d: %q, %v", i, w, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
