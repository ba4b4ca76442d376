//go:build unix

package e2e

import (
	"context"
	"reflect"
	"sync"
	"testing"

	gonats "github.com/nats-io/nats.go"
	"go-micro.dev/v5/broker"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/consul"
	"go-micro.dev/v5/registry/etcd"
	"go-micro.dev/v5/registry/nats"
	"go-micro.dev/v5/server"
	"go-micro.dev/v5/transport"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/testserver"
)

// Say is the handler of a real go-micro service.
type Say struct{}

// HelloRequest and HelloResponse are exported because go-micro wants it.
type HelloRequest struct {
	Name string `json:"name"`
}

// HelloResponse is the answer.
type HelloResponse struct {
	Msg string `json:"msg"`
}

// Hello greets everybody but Nobody.
func (*Say) Hello(_ context.Context, req *HelloRequest, rsp *HelloResponse) error {
	if req.Name == "Nobody" {
		return merrors.Forbidden("go.micro.srv.greeter", "I do not greet %s", req.Name)
	}
	rsp.Msg = "Hello " + req.Name
	return nil
}

// TestGoMicroService has a real go-micro v5 service and the sidecar find each
// other on one engine.
func TestGoMicroService(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (registry.Registry, []string){
		"consul": func(t *testing.T) (registry.Registry, []string) {
			s := testserver.Consul(t)
			return consul.NewConsulRegistry(registry.Addrs(s.Addr)), registryAt("consul", s.Addr)
		},
		"etcd": func(t *testing.T) (registry.Registry, []string) {
			s := testserver.Etcd(t)
			r := etcd.NewEtcdRegistry(registry.Addrs(s.Addr))
			client := (*clientv3.Client)(reflect.ValueOf(r).Elem().FieldByName("client").UnsafePointer())
			t.Cleanup(func() { _ = client.Close() }) // go-micro does not
			return r, registryAt("etcd", s.Addr)
		},
		"nats": func(t *testing.T) (registry.Registry, []string) {
			s := testserver.NATS(t)
			options := gonats.GetDefaultOptions()
			options.Servers = []string{"nats://" + s.Addr}
			conn := make(chan *gonats.Conn, 1)
			options.ConnectedCB = func(c *gonats.Conn) { conn <- c }
			t.Cleanup(func() { (<-conn).Close() }) // go-micro does not
			return nats.NewNatsRegistry(nats.NatsOptions(options)), registryAt("nats", s.Addr+"?layout=gomicro")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			theirs, env := open(t)
			testGoMicroService(t, newWorld(t, noConsul).with(env...), theirs)
		})
	}
}

func testGoMicroService(t *testing.T, w world, theirs registry.Registry) {
	srv := server.NewRPCServer(server.Name("go.micro.srv.greeter"), server.Address("127.0.0.1:0"), server.Registry(theirs),
		server.Broker(broker.NewMemoryBroker()), server.Transport(transport.NewHTTPTransport()))
	if err := srv.Handle(srv.NewHandler(new(Say))); err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := srv.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)

	app := newGreeter(t)
	s := w.sidecar(t, "--server_name=go.micro.srv.app", "--server_address="+app.addr, "--server_version=3")
	for range 3 {
		s.post("/greeter/say/hello", john).is(t, 200, helloJohn)
	}
	s.post("/rpc", `{"service":"go.micro.srv.greeter","method":"Say.Hello","request":`+john+`}`).is(t, 200, helloJohn)
	s.post("/greeter/say/hello", `{"name":"Nobody"}`).is(t, 403,
		`{"id":"go.micro.srv.greeter","code":403,"detail":"I do not greet Nobody","status":"Forbidden"}`)
	if out := w.succeed(t, "call", "go.micro.srv.greeter", "Say.Hello", john); !sameJSON(out, helloJohn) {
		t.Errorf("call: %s", out)
	}

	within(t, patient, "the application to be registered", func() bool { return s.knows("go.micro.srv.app") })
	found, err := theirs.GetService("go.micro.srv.app")
	if err != nil || len(found) != 1 || found[0].Version != "3" || len(found[0].Nodes) != 1 || found[0].Nodes[0].Address != app.addr {
		t.Errorf("go-micro finds %+v, %v", found, err)
	}

	stop()
	within(t, patient, "the service to be gone", func() bool { return s.post("/greeter/say/hello", john).status == 404 })
}
