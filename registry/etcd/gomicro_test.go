package etcd

import (
	"reflect"
	"slices"
	"testing"
	"time"

	micro "go-micro.dev/v5/registry"
	microetcd "go-micro.dev/v5/registry/etcd"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
)

// theirs is go-micro's own registry on the server. It cannot be closed: its
// client is, behind its back.
func theirs(t *testing.T, s *testserver.EtcdServer) micro.Registry {
	t.Helper()
	r := microetcd.NewEtcdRegistry(micro.Addrs(s.Addr))
	field := reflect.ValueOf(r).Elem().FieldByName("client")
	client := (*clientv3.Client)(field.UnsafePointer())
	t.Cleanup(func() { _ = client.Close() }) // it has nothing to say
	return r
}

func TestGoMicroReadsOurs(t *testing.T) {
	s := testserver.Etcd(t)
	r, peer := open(t, s.Addr), theirs(t, s)
	for _, name := range []string{"go.micro.srv.greeter", "with/slash", "."} {
		service := registry.Service{
			Name: name, Version: "1.2.3", Metadata: map[string]string{"team": "blue"},
			Endpoints: []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "name", Type: "string"}}}, Metadata: map[string]string{"stream": "false"}}},
			Nodes: []registry.Node{
				{ID: "greeter-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp", "a.b": "c"}},
				{ID: "greeter/2", Address: "::1", Port: 9092, Metadata: map[string]string{"protocol": "mucp"}},
			},
		}
		if err := r.Register(bounded30(t), service, time.Minute); err != nil {
			t.Fatal(err)
		}
		if name == "." {
			continue // go-micro would look for it elsewhere
		}
		have, err := peer.GetService(name)
		if err != nil || len(have) != 1 || len(have[0].Nodes) != 2 || len(have[0].Endpoints) != 1 {
			t.Fatalf("%+v, %v", have, err)
		}
		got := have[0]
		if got.Name != name || got.Version != "1.2.3" || got.Metadata["team"] != "blue" || got.Endpoints[0].Request.Values[0].Type != "string" {
			t.Errorf("service %+v, endpoint %+v", got, got.Endpoints[0])
		}
		slices.SortFunc(got.Nodes, func(a, b *micro.Node) int { return len(a.Metadata) - len(b.Metadata) })
		if n := got.Nodes[1]; n.Id != "greeter-1" || n.Address != "127.0.0.1:9091" || !reflect.DeepEqual(n.Metadata, service.Nodes[0].Metadata) {
			t.Errorf("first node: %+v", n)
		}
		if n := got.Nodes[0]; n.Id != "greeter/2" || n.Address != "[::1]:9092" {
			t.Errorf("second node: %+v", n)
		}
	}
	all, err := peer.ListServices()
	if err != nil || len(all) != 3 {
		t.Errorf("go-micro lists %v, %v", all, err)
	}
}

func TestWeReadGoMicros(t *testing.T) {
	s := testserver.Etcd(t)
	r, peer := open(t, s.Addr), theirs(t, s)
	w := follow(t, r)
	for _, name := range []string{"go.micro.srv.greeter", "with/slash"} {
		for _, id := range []string{"greeter-1", "greeter/1"} {
			service := &micro.Service{
				Name: name, Version: "latest",
				Endpoints: []*micro.Endpoint{{Name: "Say.Hello", Request: &micro.Value{Name: "Request", Type: "Request"}}},
				Nodes:     []*micro.Node{{Id: id, Address: "127.0.0.1:9091", Metadata: map[string]string{"protocol": "mucp"}}},
			}
			if err := peer.Register(service, micro.RegisterTTL(time.Minute)); err != nil {
				t.Fatal(err)
			}
			w.wait(t, "their registration", name)
			want := []registry.Service{{
				Name: name, Version: "latest",
				Endpoints: []registry.Endpoint{{Name: "Say.Hello", Request: &registry.Value{Name: "Request", Type: "Request"}}},
				Nodes:     []registry.Node{{ID: id, Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{"protocol": "mucp"}}},
			}}
			have, err := r.Get(bounded30(t), name)
			if err != nil || !reflect.DeepEqual(have, want) {
				t.Errorf("have %+v, %v\nwant %+v", have, err, want)
			}
			// What they registered is renewed by us as it is, and removed by
			// name and id alone: the key is one.
			if err := r.Register(bounded30(t), have[0], time.Minute); err != nil {
				t.Fatal(err)
			}
			if have, err = r.Get(bounded30(t), name); err != nil || !reflect.DeepEqual(have, want) {
				t.Errorf("renewed by us: %+v, %v", have, err)
			}
			if err := r.Deregister(bounded30(t), registry.Service{Name: name, Nodes: []registry.Node{{ID: id}}}); err != nil {
				t.Fatal(err)
			}
			if left, err := peer.GetService(name); err == nil && len(left) > 0 {
				t.Errorf("left over: %+v", left[0].Nodes[0])
			}
			if err := peer.Deregister(service); err != nil { // it renews no longer
				t.Fatal(err)
			}
		}
	}
	if names, err := r.List(bounded30(t)); err != nil || len(names) > 0 {
		t.Errorf("List: %q, %v", names, err)
	}
}

// Two services that go-micro keeps in one folder are two for us.
func TestSharedFolder(t *testing.T) {
	s := testserver.Etcd(t)
	r, peer := open(t, s.Addr), theirs(t, s)
	names := map[string]string{"a-b": "hyphen", "a/b": "slash"} // and the id of go-micro's node
	for name, id := range names {
		n := &micro.Node{Id: id, Address: "127.0.0.1:1"}
		if err := peer.Register(&micro.Service{Name: name, Nodes: []*micro.Node{n}}); err != nil {
			t.Fatal(err)
		}
		ours := registry.Service{Name: name, Nodes: []registry.Node{{ID: "ours", Address: "127.0.0.1", Port: 2}}}
		if err := r.Register(bounded30(t), ours, 0); err != nil {
			t.Fatal(err)
		}
	}
	for name, id := range names {
		have, err := r.Get(bounded30(t), name)
		if err != nil || len(have) != 1 || len(have[0].Nodes) != 2 || have[0].Nodes[0].ID != min(id, "ours") {
			t.Errorf("%s: %+v, %v", name, have, err)
		}
	}
}
