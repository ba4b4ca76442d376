package consul

import (
	"reflect"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	microconsul "go-micro.dev/v5/registry/consul"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

func TestGoMicroReadsOurs(t *testing.T) {
	s := testserver.Consul(t)
	r, theirs := open(t, s), microconsul.NewConsulRegistry(micro.Addrs(s.Addr))
	service := registry.Service{
		Name: "go.micro.srv.greeter", Version: "1.2.3", Metadata: map[string]string{"ours": "alone"},
		Endpoints: []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "name", Type: "string"}}}, Metadata: map[string]string{"stream": "false"}}},
		Nodes: []registry.Node{
			{ID: "greeter-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp", "a.b": "c"}},
			{ID: "greeter-2", Address: "::1", Port: 9092, Metadata: map[string]string{"protocol": "mucp"}},
		},
	}
	register(t, r, service, time.Minute)
	have, err := theirs.GetService("go.micro.srv.greeter")
	if err != nil || len(have) != 1 || len(have[0].Nodes) != 2 || len(have[0].Endpoints) != 1 {
		t.Fatalf("%+v, %v", have, err)
	}
	if have[0].Version != "1.2.3" || have[0].Endpoints[0].Name != "Say.Hello" || have[0].Endpoints[0].Request.Values[0].Type != "string" {
		t.Errorf("version %q, endpoint %+v", have[0].Version, have[0].Endpoints[0])
	}
	nodes := make(map[string]*micro.Node)
	for _, n := range have[0].Nodes {
		nodes[n.Id] = n
	}
	if n := nodes["greeter-1"]; n == nil || n.Address != "127.0.0.1:9091" || !reflect.DeepEqual(n.Metadata, service.Nodes[0].Metadata) {
		t.Errorf("greeter-1: %+v", n)
	}
	if n := nodes["greeter-2"]; n == nil || n.Address != "[::1]:9092" {
		t.Errorf("greeter-2: %+v", n)
	}
}

func TestWeReadGoMicros(t *testing.T) {
	s := testserver.Consul(t)
	r, theirs := open(t, s), microconsul.NewConsulRegistry(micro.Addrs(s.Addr))
	service := &micro.Service{
		Name: "go.micro.srv.greeter", Version: "latest",
		Endpoints: []*micro.Endpoint{{Name: "Say.Hello", Request: &micro.Value{Name: "Request", Type: "Request"}}},
		Nodes:     []*micro.Node{{Id: "greeter-1", Address: "127.0.0.1:9091", Metadata: map[string]string{"protocol": "mucp", "server": "mucp"}}},
	}
	if err := theirs.Register(service, micro.RegisterTTL(time.Minute)); err != nil {
		t.Fatal(err)
	}
	want := []registry.Service{{
		Name: "go.micro.srv.greeter", Version: "latest",
		Endpoints: []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request"}}},
		Nodes:     []registry.Node{{ID: "greeter-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp", "server": "mucp"}}},
	}}
	var have []registry.Service
	eventually(t, "go-micro's service", func() bool {
		var err error
		have, err = r.Get(t.Context(), "go.micro.srv.greeter")
		return err == nil && len(have) == 1 && len(have[0].Nodes) == 1
	})
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
	// By name and id alone it is ours to remove.
	if err := r.Deregister(t.Context(), registry.Service{Name: service.Name, Nodes: []registry.Node{{ID: "greeter-1"}}}); err != nil {
		t.Fatal(err)
	}
	if left, err := theirs.GetService(service.Name); err == nil && len(left) > 0 && len(left[0].Nodes) > 0 {
		t.Errorf("left over: %+v", left[0])
	}
}
