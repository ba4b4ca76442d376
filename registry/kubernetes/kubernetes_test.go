package kubernetes_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/kubernetes"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type obj = map[string]any

func open(t *testing.T, address string) *kubernetes.Registry {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	r, err := kubernetes.Open(u, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// show returns a service as "version: id=host:port{metadata} …".
func show(ctx context.Context, r registry.Registry, name string) string {
	services, err := r.Get(ctx, name)
	if errors.Is(err, registry.ErrNotFound) {
		return "not found"
	}
	if err != nil {
		return "error: " + err.Error()
	}
	var all []string
	for _, s := range services {
		all = append(all, s.Version+":")
		for _, n := range s.Nodes {
			all = append(all, fmt.Sprintf("%s=%s%v", n.ID, n.HostPort(), n.Metadata))
		}
	}
	return strings.Join(all, " ")
}

func await(t *testing.T, r registry.Registry, name, want string) {
	t.Helper()
	registrytest.Eventually(t, func() string {
		if have := show(t.Context(), r, name); have != want {
			return name + ": have " + have + ", want " + want
		}
		return ""
	})
}

// cluster is a namespace of an API server.
type cluster struct {
	*testserver.KubernetesServer
	ns string
}

func (c cluster) services() string { return "/api/v1/namespaces/" + c.ns + "/services" }
func (c cluster) slices() string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + c.ns + "/endpointslices"
}

func (c cluster) service(name string, annotations obj) obj {
	return obj{
		"apiVersion": "v1", "kind": "Service", "metadata": obj{"name": name, "annotations": annotations},
		"spec": obj{"ports": []obj{{"name": "http", "port": 80}}},
	}
}

func (c cluster) slice(name, owner, family string, ports []obj, endpoints ...obj) obj {
	return obj{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    obj{"name": name, "labels": obj{"kubernetes.io/service-name": owner}},
		"addressType": family, "ports": ports, "endpoints": endpoints,
	}
}

func pod(name, address string, ready bool) obj {
	return obj{
		"addresses": []string{address}, "conditions": obj{"ready": ready},
		"targetRef": obj{"kind": "Pod", "name": name},
	}
}

var http8080 = []obj{{"name": "http", "port": 8080}}

// TestAPIServer goes through the life of services on a real API server. It is
// in place of registrytest, which writes services of any name, with metadata and
// versions a node: the driver cannot write, and no API server holds those. What
// the suite asks of who reads is asked here, and what keeps the services, package
// picture, passes it with the drivers for mdns and static files.
func TestAPIServer(t *testing.T) {
	server := testserver.Kubernetes(t)
	c := cluster{server, "shop"}
	c.Do("POST", "/api/v1/namespaces", obj{"apiVersion": "v1", "kind": "Namespace", "metadata": obj{"name": "shop"}})
	access := "token_file=" + server.TokenFile + "&ca_file=" + server.CAFile
	c.Do("POST", c.services(), c.service("before", nil))
	c.Do("POST", c.slices(), c.slice("before-1", "before", "IPv4", http8080, pod("b1", "10.1.0.1", true)))

	r := open(t, "kubernetes://"+server.Addr+"?namespace=shop&"+access)
	await(t, r, "before", ": b1=10.1.0.1:8080map[]")
	if err := r.Register(t.Context(), registry.Service{Name: "x"}, 0); !errors.Is(err, registry.ErrReadOnly) {
		t.Errorf("Register: %v", err)
	}
	registrytest.Eventually(t, func() string { return text(r.Ping(t.Context())) })
	log := watch(t, r)

	// Only ready endpoints; the port by name; a pod of two families is one node.
	c.Do("POST", c.services(), c.service("greeter", obj{"micro.dev/zone": "x", "micro.dev/version": "2"}))
	await(t, r, "greeter", "2:")
	ports := []obj{{"name": "metrics", "port": 9100}, {"name": "grpc-api", "port": 9000, "appProtocol": "grpc"}}
	c.Do("POST", c.slices(), c.slice("greeter-1", "greeter", "IPv4", ports, pod("g1", "10.1.0.2", true), pod("g2", "10.1.0.3", false)))
	c.Do("POST", c.slices(), c.slice("greeter-2", "greeter", "IPv6", ports, pod("g1", "fd00::2", true), pod("g3", "fd00::3", true)))
	await(t, r, "greeter", "2: g1=10.1.0.2:9000map[protocol:grpc zone:x] g3=[fd00::3]:9000map[protocol:grpc zone:x]")
	c.Do("PUT", c.slices()+"/greeter-1", c.slice("greeter-1", "greeter", "IPv4", ports, pod("g2", "10.1.0.3", true)))
	await(t, r, "greeter", "2: g1=[fd00::2]:9000map[protocol:grpc zone:x] g2=10.1.0.3:9000map[protocol:grpc zone:x] g3=[fd00::3]:9000map[protocol:grpc zone:x]")
	c.Do("DELETE", c.slices()+"/greeter-2", nil)
	await(t, r, "greeter", "2: g2=10.1.0.3:9000map[protocol:grpc zone:x]")

	// A name of go-micro's, shared by two Services; a name that changes.
	for _, n := range []string{"one", "two"} {
		c.Do("POST", c.services(), c.service(n, obj{"micro.dev/service-name": "go.micro.srv.both", "micro.dev/version": n}))
		c.Do("POST", c.slices(), c.slice(n, n, "IPv4", http8080, pod("p", "10.1.1.1", true)))
	}
	await(t, r, "go.micro.srv.both", "one: one.p=10.1.1.1:8080map[] two: two.p=10.1.1.1:8080map[]")
	c.Do("DELETE", c.services()+"/two", nil)
	await(t, r, "go.micro.srv.both", "one: one.p=10.1.1.1:8080map[]")
	await(t, r, "two", "not found")

	// Annotations that make no sense cost their own service its nodes.
	c.Do("POST", c.services(), c.service("odd", obj{"micro.dev/service-name": "a/b c", "micro.dev/port": "70000"}))
	c.Do("POST", c.slices(), c.slice("odd", "odd", "IPv4", http8080, pod("p", "10.1.2.1", true)))
	c.Do("POST", c.slices(), c.slice("orphan", "nosuch", "IPv4", http8080, pod("p", "10.1.2.2", true)))
	await(t, r, "a/b c", ":")
	c.Do("DELETE", c.services()+"/odd", nil)
	await(t, r, "a/b c", "not found")
	testReading(t, r)

	// Another namespace is seen by who asked for all.
	other := cluster{server, "default"}
	other.Do("POST", other.services(), other.service("greeter", nil))
	all := open(t, "https://"+server.Addr+"?namespace=*&"+access)
	await(t, all, "greeter.default", ":")
	await(t, all, "greeter.shop", "2: g2=10.1.0.3:9000map[protocol:grpc zone:x]")
	if names, err := r.List(t.Context()); err != nil || fmt.Sprint(names) != "[before go.micro.srv.both greeter]" {
		t.Errorf("List: %q, %v", names, err)
	}

	// While the API is away what is known stays; what changed meanwhile is seen after it.
	server.Stop()
	registrytest.Eventually(t, func() string {
		if r.Ping(t.Context()) == nil {
			return "Ping does not tell that the API server is away"
		}
		return ""
	})
	if have := show(t.Context(), r, "before"); have != ": b1=10.1.0.1:8080map[]" {
		t.Errorf("without the API server: %s", have)
	}
	server.Start()
	registrytest.Eventually(t, func() string { return text(r.Ping(t.Context())) })
	c.Do("PUT", c.slices()+"/before-1", c.slice("before-1", "before", "IPv4", http8080, pod("b2", "10.1.0.9", true)))
	await(t, r, "before", ": b2=10.1.0.9:8080map[]")
	c.Do("DELETE", c.services()+"/before", nil)
	await(t, r, "before", "not found")
	registrytest.Eventually(t, func() string {
		want := []string{"before: b2=10.1.0.9:8080map[]", "before: gone"}
		if have := log.of("before"); fmt.Sprint(have) != fmt.Sprint(want) {
			return fmt.Sprintf("events: %q, want %q", have, want)
		}
		return ""
	})

	wrong := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(wrong, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := open(t, "kubernetes://"+server.Addr+"?token_file="+wrong+"&ca_file="+server.CAFile)
	if have := show(t.Context(), stranger, "x"); !strings.Contains(have, "401") {
		t.Errorf("with a wrong token: %s", have)
	}
	if err := os.WriteFile(wrong, []byte("test-token"), 0o600); err != nil { // it was replaced
		t.Fatal(err)
	}
	await(t, stranger, "greeter", ":")
	fromFile(t, server)
}

// testReading asks what registrytest asks of who reads.
func testReading(t *testing.T, r registry.Registry) {
	t.Helper()
	for _, name := range []string{"nosuch", "", "a/b", "Greeter"} {
		if _, err := r.Get(t.Context(), name); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("Get(%q): %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Watch(ended, func(registry.Event) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch that is over: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	live, over := make(chan struct{}), make(chan error, 1)
	go func() {
		first := sync.OnceFunc(func() { close(live) })
		over <- r.Watch(ctx, func(e registry.Event) {
			if e.Name != "" {
				t.Errorf("a watch without changes told of %q", e.Name)
			}
			first()
		})
	}()
	<-live
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

// fromFile finds the server through a kubeconfig file.
func fromFile(t *testing.T, server *testserver.KubernetesServer) {
	t.Helper()
	ca, err := os.ReadFile(server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config")
	text := `
apiVersion: v1
kind: Config
current-context: none
contexts:
- name: test
  context: {cluster: c, user: u, namespace: shop}
clusters:
- name: c
  cluster: {server: "https://` + server.Addr + `", certificate-authority-data: ` + base64.StdEncoding.EncodeToString(ca) + `}
users:
- name: u
  user: {token: test-token}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, open(t, "kubernetes://"+path+"?context=test"), "go.micro.srv.both", "one: one.p=10.1.1.1:8080map[]")
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

// events are what a watch told.
type events struct {
	mu   sync.Mutex
	list []registry.Event
}

func (e *events) of(name string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []string
	for _, ev := range e.list {
		if ev.Name != name {
			continue
		}
		line := name + ": gone"
		for _, s := range ev.Services {
			line = name + ":"
			for _, n := range s.Nodes {
				line += fmt.Sprintf(" %s=%s%v", n.ID, n.HostPort(), n.Metadata)
			}
		}
		all = append(all, line)
	}
	return all
}

// watch follows r until the test ends.
func watch(t *testing.T, r registry.Registry) *events {
	t.Helper()
	e := &events{}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	live := make(chan struct{})
	var once sync.Once
	watching.Go(func() {
		_ = r.Watch(ctx, func(ev registry.Event) { // ctx's error
			e.mu.Lock()
			defer e.mu.Unlock()
			e.list = append(e.list, ev)
			once.Do(func() { close(live) })
		})
	})
	t.Cleanup(func() {
		cancel()
		watching.Wait()
	})
	<-live
	return e
}

func TestCheckAddress(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exec := write("exec", `
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://x"}}]
users: [{name: u, user: {exec: {command: aws}}}]
`)
	for address, want := range map[string]string{
		"kubernetes://a:6443":                             "",
		"kubernetes://a?namespace=*":                      "",
		"kubernetes://a?namespace=A/b":                    "parameter namespace",
		"kubernetes://a?namespac=x":                       "did you mean namespace?",
		"kubernetes://a,b":                                "expected one host",
		"kubernetes://u:p@a":                              "expected kubernetes://",
		"kubernetes://a?token_file=/nosuch":               "no such file",
		"kubernetes://a?token_file=" + write("empty", ""): "expected a token",
		"kubernetes://in-cluster":                         "this is no pod",
		"kubernetes:///nosuch":                            "no such file",
		"kubernetes://" + write("bad", "a: ["):            "line 1",
		"kubernetes://" + write("none", "a: b"):           `no context ""`,
		"kubernetes://" + exec:                            "exec",
		"kubernetes://" + exec + "?context=b":             `no context "b"`,
		"ftp://a":                                         "expected kubernetes://",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		err = kubernetes.CheckAddress(u)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if err := kubernetes.CheckAddress(nil); err == nil {
		t.Error("outside of a pod without an address")
	}
}
