package mdns_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	gomicro "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/registry/registrytest"
)

// peer is go-micro's own registry, in a domain.
func peer(domain string) gomicro.Registry {
	return gomicro.NewMDNSRegistry(gomicro.Timeout(time.Second), func(o *gomicro.Options) {
		o.Context = context.WithValue(context.Background(), "mdns.domain", domain) //nolint:staticcheck // go-micro's key is a text
	})
}

// go-micro speaks on the machine's own choice of an interface, so ours are all.
func TestGoMicro(t *testing.T) {
	domain := newDomain()
	theirs := peer(domain)
	ours, _ := open(t, domain, "")

	early := &gomicro.Service{Name: "go.micro.srv.theirs", Version: "1.0.0",
		Endpoints: []*gomicro.Endpoint{{Name: "Say.Hello", Request: &gomicro.Value{Name: "Request", Type: "Request"}}},
		Nodes: []*gomicro.Node{
			{Id: "theirs-1", Address: "10.0.0.1:9090", Metadata: map[string]string{"protocol": "mucp"}},
			{Id: "theirs-2", Address: "10.0.0.2:9090"},
		}}
	if err := theirs.Register(early); err != nil {
		t.Fatal(err)
	}
	awaitNodes(t, ours, "go.micro.srv.theirs", "theirs-1=10.0.0.1:9090 theirs-2=10.0.0.2:9090")
	have, err := ours.Get(t.Context(), "go.micro.srv.theirs")
	if err != nil || have[0].Endpoints[0].Request.Type != "Request" || have[0].Nodes[0].Metadata["protocol"] != "mucp" || have[0].Version != "1.0.0" {
		t.Errorf("%+v, %v", have, err)
	}
	late, _ := open(t, domain, "") // it has heard no announcement
	awaitNodes(t, late, "go.micro.srv.theirs", "theirs-1=10.0.0.1:9090 theirs-2=10.0.0.2:9090")
	if names, err := late.List(t.Context()); err != nil || fmt.Sprint(names) != "[go.micro.srv.theirs]" {
		t.Errorf("List: %v, %v", names, err)
	}

	register(t, ours, service("go.micro.srv.ours", "ours-1", "10.0.0.3", 9090), time.Minute)
	register(t, ours, service("go.micro.srv.ours", "ours-2", "2001:db8::3", 9090), 0)
	registrytest.Eventually(t, func() string {
		services, err := theirs.GetService("go.micro.srv.ours")
		if err != nil || len(services) != 1 || len(services[0].Nodes) != 2 {
			return fmt.Sprintf("go-micro does not find ours: %v, %v", services, err)
		}
		s := services[0]
		found := map[string]string{}
		for _, n := range s.Nodes {
			found[n.Id] = n.Address + n.Metadata["protocol"]
		}
		if have := fmt.Sprintln(found, s.Version, s.Endpoints[0].Name); have != "map[ours-1:10.0.0.3:9090mucp ours-2:[2001:db8::3]:9090mucp] 1.0.0 Say.Hello\n" {
			return have
		}
		return ""
	})
	registrytest.Eventually(t, func() string {
		services, err := theirs.ListServices()
		names := map[string]bool{}
		for _, s := range services {
			names[s.Name] = true
		}
		if err != nil || !names["go.micro.srv.ours"] || !names["go.micro.srv.theirs"] {
			return fmt.Sprint(names, err)
		}
		return ""
	})
	if err := theirs.Deregister(early); err != nil { // its goodbye
		t.Fatal(err)
	}
	awaitNodes(t, ours, "go.micro.srv.theirs", "")
	if err := ours.Close(); err != nil {
		t.Fatal(err)
	}
	if services, err := theirs.GetService("go.micro.srv.ours"); err != nil || len(services) != 0 {
		t.Errorf("after the end: %v, %v", services, err)
	}
}
