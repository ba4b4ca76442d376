//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildPeers builds go-micro's services and the micro that has go-micro's
// registries plugged in.
func buildPeers(t *testing.T) map[string]string {
	t.Helper()
	out := t.TempDir()
	programs := map[string]string{}
	build := func(name, dir, mod string, tags ...string) {
		programs[name] = filepath.Join(out, name)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-modfile="+mod, "-tags="+strings.Join(tags, ","), "-o", programs[name], ".")
		cmd.Dir = filepath.Join("testdata", dir)
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
	}
	build("plugins", "plugins", "")
	for _, g := range []generation{v08, v10, v118, v4, v5} {
		build(g.program(), g.dir, g.mod, g.tag)
		if g.grpc {
			build(g.program()+"-grpc", g.dir, g.mod, g.tag, "grpc")
		}
	}
	return programs
}

// program is the name of a generation's.
func (g generation) program() string { return "peer-" + g.version }

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
func startPeer(t *testing.T, program, engine, address, name, kind string, more ...string) *peer {
	t.Helper()
	cmd := exec.Command(program, append([]string{"-registry=" + engine, "-address=" + address, "-name=" + name, "-server=" + kind}, more...)...)
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
	line := p.hear()
	nodes := nodesOf(line)
	if len(nodes) != 1 {
		t.Fatalf("%s said %s", name, line)
	}
	p.services, p.address = line, nodes[0].address
	if got := nodes[0].protocol; got != "" && got != kind {
		t.Fatalf("%s is registered with protocol=%s", name, got)
	}
	return p
}

// theirNode is a node as go-micro has it.
type theirNode struct{ address, protocol string }

// nodesOf reads the nodes in go-micro's JSON of services, whose older versions
// have the port apart. It is nil for anything else.
func nodesOf(text string) []theirNode {
	var services []struct {
		Nodes []struct {
			Address  string
			Port     int
			Metadata map[string]string
		}
	}
	if json.Unmarshal([]byte(text), &services) != nil {
		return nil
	}
	var nodes []theirNode
	for _, s := range services {
		for _, n := range s.Nodes {
			if n.Port != 0 {
				n.Address = net.JoinHostPort(n.Address, strconv.Itoa(n.Port))
			}
			nodes = append(nodes, theirNode{n.Address, n.Metadata["protocol"]})
		}
	}
	return nodes
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
