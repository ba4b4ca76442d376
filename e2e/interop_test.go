//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/micro/sidecar/internal/testserver"
)

var update = flag.Bool("update", false, "write the table of TestInterop to docs/discovery.md")

// The generations of go-micro, each a program of a module of its own.
var generations = []struct{ version, dir string }{
	{"v4.11.0", "gomicrov4"},
	{"v5.30.0", "gomicrov5"},
}

const pluggedNATS = "go-micro's NATS registry, [plugged in](plugins.md)"

// The engines, and how both sides are told of them.
var interopEngines = []struct {
	name   string // in the table
	theirs string // go-micro's registry
	start  func(t *testing.T) (address string)
	flags  func(address string) []string
	plugin bool   // the sidecar is a custom build
	only   string // the one generation that it is for
}{
	{"`consul`", "consul", func(t *testing.T) string { return testserver.Consul(t).Addr },
		func(a string) []string { return []string{"--registry=consul", "--registry_address=" + a} }, false, ""},
	{"`etcd`", "etcd", func(t *testing.T) string { return testserver.Etcd(t).Addr },
		func(a string) []string { return []string{"--registry=etcd", "--registry_address=" + a} }, false, ""},
	{"`nats` with `layout=gomicro`", "nats", plainNATS,
		func(a string) []string { return []string{"--registry=nats", "--registry_address=nats://" + a + "?layout=gomicro"} }, false, "v5.30.0"},
	{pluggedNATS, "nats", plainNATS,
		func(a string) []string { return []string{"--registry=gonats4", "--registry_address=" + a} }, true, "v4.11.0"},
	{pluggedNATS, "nats", plainNATS,
		func(a string) []string { return []string{"--registry=gonats", "--registry_address=" + a} }, true, "v5.30.0"},
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

// TestInterop has real go-micro services, registered by go-micro's own code,
// and the sidecar find and call each other. The table in docs/discovery.md says
// what was tried, no more: a cell of it is a test that ran here.
func TestInterop(t *testing.T) {
	t.Parallel()
	programs := buildPeers(t)
	table := newTable()
	t.Run("engine", func(t *testing.T) {
		for _, engine := range interopEngines {
			t.Run(engine.theirs+engine.only, func(t *testing.T) {
				t.Parallel()
				address := engine.start(t)
				w := newWorld(t, noConsul)
				if engine.plugin {
					w.binary = programs["plugins"]
				}
				app := newGreeter(t)
				s := w.sidecar(t, append(engine.flags(address), "--broker=embedded",
					"--server_name=go.micro.srv.interop.app", "--server_address="+app.addr, "--server_version=3")...)
				for _, g := range generations {
					if engine.only != "" && engine.only != g.version {
						continue
					}
					row := table.row(engine.name, g.version)
					t.Run(g.version, func(t *testing.T) {
						mucp := startPeer(t, programs[g.dir], engine.theirs, address, "go.micro.srv.interop."+g.dir, "mucp")
						grpc := startGRPC(t, programs[g.dir+"-grpc"], engine.theirs, address, mucp)
						testPeers(t, row, w, s, mucp, grpc)
					})
				}
			})
		}
	})
	if !t.Failed() {
		table.compare(t, "../docs/discovery.md")
	}
}

// testPeers is a row of the table.
func testPeers(t *testing.T, row func(form string), w world, s *sidecar, mucp, grpc *peer) {
	for _, p := range []*peer{mucp, grpc} {
		within(t, patient, p.name+" to be found", func() bool { return s.knows(p.name) })
	}
	// The same server as one of 2017's would be: without metadata.
	old := mucp.name + ".old"
	register := fmt.Sprintf(`{"Name":%q,"Nodes":[{"Id":%q,"Address":%q}]}`, old, old+"-1", mucp.address)
	s.post("/registry?ttl=5m", register).is(t, 200, "")
	t.Cleanup(func() { s.ask("DELETE", "/registry", register) })

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
	form("JSON", inJSON(mucp.name))
	form("protobuf", inProtobuf(mucp.name))
	form("JSON-RPC", inJSON(old))
	form("protorpc", inProtobuf(old))
	form("gRPC JSON", inJSON(grpc.name))
	form("gRPC protobuf", inProtobuf(grpc.name))
	form("gRPC stream", func(t *testing.T) {
		out := w.succeed(t, "stream", grpc.name, "Say.Count", `{"n":3}`, "--proxy_address="+s.addr)
		if lines := strings.Fields(out); len(lines) != 3 || !sameJSON(lines[2], `{"msg":"2"}`) {
			t.Errorf("stream: %s", out)
		}
	})
	form("`health`, `stats`", func(t *testing.T) {
		for _, p := range []*peer{mucp, grpc} {
			if out := w.succeed(t, "health", p.name, "--proxy_address="+s.addr); !strings.Contains(out, "ok") {
				t.Errorf("health of %s: %s", p.name, out)
			}
			if out := w.succeed(t, "stats", p.name, "--proxy_address="+s.addr); !strings.Contains(out, "memory") {
				t.Errorf("stats of %s: %s", p.name, out)
			}
		}
	})
	form("finds and calls ours", func(t *testing.T) {
		var found []struct {
			Version string
			Nodes   []struct{ Address string }
		}
		text := mucp.tell("find go.micro.srv.interop.app")
		if err := json.Unmarshal([]byte(text), &found); err != nil || len(found) != 1 || found[0].Version != "3" || len(found[0].Nodes) != 1 {
			t.Errorf("go-micro finds %s", text)
		}
		if text := mucp.tell("call go.micro.srv.interop.app Say.Hello " + john); !sameJSON(text, helloJohn) {
			t.Errorf("go-micro's client gets %s", text)
		}
	})
}

// rpc calls a service by its whole name.
func (s *sidecar) rpc(service, method, body string) answer {
	s.t.Helper()
	return s.post("/rpc", fmt.Sprintf(`{"service":%q,"method":%q,"request":%s}`, service, method, body))
}

// buildPeers builds go-micro's services and the micro that has go-micro's
// registries plugged in.
func buildPeers(t *testing.T) map[string]string {
	t.Helper()
	out := t.TempDir()
	programs := map[string]string{}
	for _, name := range []string{"plugins", "gomicrov4", "gomicrov4-grpc", "gomicrov5", "gomicrov5-grpc"} {
		programs[name] = filepath.Join(out, name)
		dir, tag, _ := strings.Cut(name, "-")
		build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-tags="+tag, "-o", programs[name], ".")
		build.Dir = filepath.Join("testdata", dir)
		build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
	}
	return programs
}

// startGRPC starts a gRPC service. Beside it go-micro's etcd code does not work
// in one process: there the other service registers it.
func startGRPC(t *testing.T, program, engine, address string, registrar *peer) *peer {
	t.Helper()
	name := registrar.name + "grpc"
	if engine != "etcd" {
		return startPeer(t, program, engine, address, name, "grpc")
	}
	p := startPeer(t, program, "memory", "", name, "grpc")
	if said := registrar.tell("register " + p.services); said != `"<nil>"` && said != `"\u003cnil\u003e"` {
		t.Fatalf("%s is not registered: %s", name, said)
	}
	return p
}

// peer is a running go-micro service.
type peer struct {
	t             *testing.T
	name, address string
	services      string // as go-micro's JSON
	mu            sync.Mutex
	in            *bufio.Writer
	out           *bufio.Reader
}

// startPeer starts a service and returns when go-micro itself finds it.
func startPeer(t *testing.T, program, engine, address, name, kind string) *peer {
	t.Helper()
	cmd := exec.Command(program, "-registry="+engine, "-address="+address, "-name="+name, "-server="+kind)
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		kill := time.AfterFunc(patient, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = stdin.Close() // the word to stop
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	p := &peer{t: t, name: name, in: bufio.NewWriter(stdin), out: bufio.NewReader(stdout)}
	var services []struct {
		Nodes []struct {
			Address  string
			Metadata map[string]string
		}
	}
	line := p.hear()
	if err := json.Unmarshal([]byte(line), &services); err != nil || len(services) != 1 || len(services[0].Nodes) != 1 {
		t.Fatalf("%s said %s", name, line)
	}
	if got := services[0].Nodes[0].Metadata["protocol"]; got != kind {
		t.Fatalf("%s is registered with protocol=%s", name, got)
	}
	p.services = line
	_, port, err := net.SplitHostPort(services[0].Nodes[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	p.address = net.JoinHostPort("127.0.0.1", port)
	return p
}

// tell gives an order and returns the answer.
func (p *peer) tell(order string) string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := p.in.WriteString(order + "\n"); err != nil {
		p.t.Fatal(err)
	}
	if err := p.in.Flush(); err != nil {
		p.t.Fatal(err)
	}
	return p.hear()
}

func (p *peer) hear() string {
	p.t.Helper()
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			p.t.Fatalf("%s said %q: %v", p.name, line, err)
		}
		if said, ok := strings.CutPrefix(line, "=> "); ok { // else it is go-micro's log
			return strings.TrimSpace(said)
		}
	}
}

// table is the one in the documents.
type table struct {
	mu    sync.Mutex
	cells map[[3]string]bool
}

func newTable() *table { return &table{cells: map[[3]string]bool{}} }

// row returns what notes a cell.
func (x *table) row(engine, version string) func(form string) {
	return func(form string) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.cells[[3]string{engine, version, form}] = true
	}
}

// text is the table as Markdown: what was not tried is blank.
func (x *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| registry | go-micro | %s |\n|%s\n", strings.Join(forms, " | "), strings.Repeat(" --- |", len(forms)+2))
	for _, engine := range interopEngines {
		for _, g := range generations {
			if engine.only != "" && engine.only != g.version {
				continue
			}
			fmt.Fprintf(&b, "| %s | %s |", engine.name, g.version)
			for _, form := range forms {
				mark := ""
				if x.cells[[3]string{engine.name, g.version, form}] {
					mark = "✓"
				}
				fmt.Fprintf(&b, " %s |", mark)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// The marks around the table.
const (
	tableBegins = "<!-- generated by TestInterop in e2e; go test ./e2e -run Interop -update -->\n"
	tableEnds   = "<!-- end -->\n"
)

// compare holds the table against the one on the page, or writes it there.
func (x *table) compare(t *testing.T, path string) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), tableBegins)
	there, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		t.Fatalf("%s has no place for the table", path)
	}
	want := x.text()
	switch {
	case there == want:
	case *update:
		if err := os.WriteFile(path, []byte(before+tableBegins+want+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has another table; with -update it would be\n%s", path, want)
	}
}
