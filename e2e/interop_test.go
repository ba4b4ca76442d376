//go:build unix

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/testserver"
)

var update = flag.Bool("update", false, "write the tables of TestInterop to docs")

// generation is a version of go-micro, with the program of its services.
type generation struct {
	version, dir, tag string
	mod               string // the file of requirements, if it is not go.mod
	mucp, grpc        bool   // which forms it speaks beside JSON-RPC
}

// Of 2018, with Consul as its default; of 2019, before and after Consul left;
// and of today.
var (
	v08  = generation{version: "v0.8.0", dir: "gomicro2018", tag: "v0"}
	v10  = generation{version: "v1.0.0", dir: "gomicro2018", tag: "v1", mod: "v1.0.0.mod", mucp: true}
	v118 = generation{version: "v1.18.0", dir: "gomicro2018", tag: "v118", mod: "v1.18.0.mod", mucp: true, grpc: true}
	v4   = generation{version: "v4.11.0", dir: "gomicrov4", mucp: true, grpc: true}
	v5   = generation{version: "v5.30.0", dir: "gomicrov5", mucp: true, grpc: true}
)

const pluggedNATS = "go-micro's NATS registry, [plugged in](plugins.md)"

// The engines, and how both sides are told of them.
var interopEngines = []struct {
	name     string // in the table
	theirs   string // go-micro's registry
	start    func(t *testing.T) (address string)
	env      func(address string) []string // of the sidecar
	plugin   bool                          // the sidecar is a custom build
	versions []generation
}{
	{"`consul`", "consul", func(t *testing.T) string { return testserver.Consul(t).Addr },
		func(a string) []string { return registryAt("consul", a) }, false, []generation{v08, v10, v4, v5}},
	{"`etcd`", "etcd", func(t *testing.T) string { return testserver.Etcd(t).Addr },
		func(a string) []string { return registryAt("etcd", a) }, false, []generation{v118, v4, v5}},
	{"`nats` with `layout=gomicro`", "nats", plainNATS,
		func(a string) []string { return registryAt("nats", "nats://"+a+"?layout=gomicro") }, false, []generation{v5}},
	{pluggedNATS, "nats", plainNATS,
		func(a string) []string { return registryAt("gonats4", a) }, true, []generation{v4}},
	{pluggedNATS, "nats", plainNATS,
		func(a string) []string { return registryAt("gonats", a) }, true, []generation{v5}},
	{"`mdns`", "mdns", multicast,
		func(string) []string { return []string{"MICRO_REGISTRY=mdns"} }, false, []generation{v118, v4, v5}},
	{"`mdns://local`", "mdns", multicast,
		func(string) []string { return registryAt("mdns", "mdns://local") }, false, []generation{v08, v10}},
}

// The columns of the table.
var forms = []string{
	"JSON", "protobuf", "JSON-RPC", "protorpc", "gRPC JSON", "gRPC protobuf", "gRPC stream", "`health`, `stats`", "finds and calls ours",
}

// plainNATS starts a NATS server without JetStream and returns its address.
func plainNATS(t *testing.T) string {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patient) {
		t.Fatal("NATS does not start")
	}
	return s.Addr().String()
}

// multicast is that of multicast DNS, where there is nothing to start.
func multicast(*testing.T) string { return "" }

// TestInterop has real go-micro services, registered by go-micro's own code,
// and the sidecar find and call each other, and hear each other's messages. The
// tables in docs say what was tried, no more: a cell of them is a test that ran
// here.
func TestInterop(t *testing.T) {
	t.Parallel()
	programs := buildPeers(t)
	t.Run("messages", func(t *testing.T) {
		t.Parallel()
		testInteropMessages(t, programs)
	})
	t.Run("services", func(t *testing.T) {
		t.Parallel()
		testInteropServices(t, programs)
	})
}

func testInteropServices(t *testing.T, programs map[string]string) {
	table := newTable(forms)
	for _, engine := range interopEngines {
		for _, g := range engine.versions {
			table.add(engine.name, g.version)
		}
	}
	// Multicast DNS reaches whoever runs these tests at the same time.
	prefix := fmt.Sprintf("go.micro.srv.i%08x.", rand.Uint32())
	t.Run("engine", func(t *testing.T) {
		for _, engine := range interopEngines {
			t.Run(engine.name+engine.versions[0].version, func(t *testing.T) {
				t.Parallel()
				address := engine.start(t)
				w := newWorld(t, noConsul).with(engine.env(address)...)
				if engine.plugin {
					w.binary = programs["plugins"]
				}
				app := newGreeter(t)
				// Old go-micro hears answers of every domain of multicast DNS.
				ours := prefix + "app" + strings.ReplaceAll(engine.versions[0].version, ".", "-")
				s := w.sidecar(t, "--broker=embedded",
					"--server_name="+ours, "--server_address="+app.addr, "--server_version=3")
				for _, g := range engine.versions {
					row := table.row(engine.name, g.version)
					t.Run(g.version, func(t *testing.T) {
						name := prefix + strings.ReplaceAll(g.version, ".", "-")
						p := pair{generation: g, mucp: startPeer(t, programs[g.program()], engine.theirs, address, name, "mucp")}
						if g.grpc {
							p.grpc = startGRPC(t, programs[g.program()+"-grpc"], engine.theirs, address, p.mucp)
						}
						testPeers(t, row, w, s, ours, p)
					})
				}
			})
		}
	})
	if !t.Failed() {
		table.compare(t, "../docs/discovery.md")
	}
}

// pair is one generation's services.
type pair struct {
	generation
	mucp, grpc *peer // grpc is nil where there is none
}

func (p pair) all() []*peer {
	if p.grpc == nil {
		return []*peer{p.mucp}
	}
	return []*peer{p.mucp, p.grpc}
}

// testPeers is a row of the table. app is the name of the sidecar's.
func testPeers(t *testing.T, row func(form string), w world, s *sidecar, app string, p pair) {
	for _, p := range p.all() {
		within(t, patient, p.name+" to be found", func() bool { return s.knows(p.name) })
	}
	mucp, grpc, old := p.mucp, p.grpc, p.mucp.name
	if p.generation.mucp {
		// The same server as one of 2017's would be: without metadata.
		old += ".old"
		register := fmt.Sprintf(`{"Name":%q,"Nodes":[{"Id":%q,"Address":%q}]}`, old, old+"-1", mucp.address)
		s.post("/registry?ttl=5m", register).is(t, 200, "")
		t.Cleanup(func() { s.ask("DELETE", "/registry", register) })
	}

	form := func(name string, test func(t *testing.T)) {
		if t.Run(name, test) {
			row(name)
		}
	}
	inJSON := func(service string) func(*testing.T) {
		return func(t *testing.T) {
			for range 3 {
				s.rpc(service, "Say.Hello", john).is(t, 200, helloJohn)
			}
			if got := s.rpc(service, "Say.Hello", `{"name":"Nobody"}`); got.status != 403 || !strings.Contains(got.body, "I do not greet Nobody") {
				t.Errorf("an error of the service: %+v", got)
			}
		}
	}
	inProtobuf := func(service string) func(*testing.T) {
		return func(t *testing.T) {
			arg, err := proto.Marshal(wrapperspb.String("John"))
			if err != nil {
				t.Fatal(err)
			}
			got := s.ask("POST", strings.ReplaceAll(strings.TrimPrefix(service, "go.micro.srv"), ".", "/")+"/say/proto", string(arg), contentType, "application/protobuf")
			var v wrapperspb.StringValue
			if err := proto.Unmarshal([]byte(got.body), &v); got.status != 200 || err != nil || v.Value != "Hello John" {
				t.Errorf("%d %q, %v", got.status, got.body, err)
			}
		}
	}
	form("JSON-RPC", inJSON(old))
	form("protorpc", inProtobuf(old))
	if p.generation.mucp {
		form("JSON", inJSON(mucp.name))
		form("protobuf", inProtobuf(mucp.name))
	}
	if p.generation.grpc {
		form("gRPC JSON", inJSON(grpc.name))
		form("gRPC protobuf", inProtobuf(grpc.name))
		form("gRPC stream", func(t *testing.T) {
			out := w.succeed(t, "stream", grpc.name, "Say.Count", `{"n":3}`, "--proxy_address="+s.addr)
			if lines := strings.Fields(out); len(lines) != 3 || !sameJSON(lines[2], `{"msg":"2"}`) {
				t.Errorf("stream: %s", out)
			}
		})
	}
	form("`health`, `stats`", func(t *testing.T) {
		for _, p := range p.all() {
			if out := w.succeed(t, "health", p.name, "--proxy_address="+s.addr); !strings.Contains(out, "ok") {
				t.Errorf("health of %s: %s", p.name, out)
			}
			if out := w.succeed(t, "stats", p.name, "--proxy_address="+s.addr); !strings.Contains(out, "memory") {
				t.Errorf("stats of %s: %s", p.name, out)
			}
		}
	})
	form("finds and calls ours", func(t *testing.T) {
		text := mucp.tell("find " + app)
		if found := nodesOf(text); len(found) != 1 || !strings.Contains(text, `"version":"3"`) {
			t.Errorf("go-micro finds %s", text)
		}
		if text := mucp.tell("call " + app + " Say.Hello " + john); !sameJSON(text, helloJohn) {
			t.Errorf("go-micro's client gets %s", text)
		}
	})
}

// rpc calls a service by its whole name.
func (s *sidecar) rpc(service, method, body string) answer {
	s.t.Helper()
	return s.post("/rpc", fmt.Sprintf(`{"service":%q,"method":%q,"request":%s}`, service, method, body))
}
