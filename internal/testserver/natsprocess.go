//go:build unix

package testserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NATSProcess is a NATS server with JetStream in a process of its own, so that
// it can be killed. The process is the test binary run again: its TestMain
// calls [NATSMain] first.
type NATSProcess struct {
	// Addr is its host and port for clients. It stays the same.
	Addr string

	node    natsNode
	process *process // nil while it is stopped
}

// natsNode is what a process is told.
type natsNode struct {
	Name, Store   string
	Port, Cluster int   // ports; Cluster is 0 for a server that is alone
	Routes        []int // the Cluster ports of all
}

const natsNodeVar = "MICRO_TEST_NATS_NODE"

// NATSMain returns at once in an ordinary test run. In a process of
// [NATSProcesses] it is the server, until it is killed.
func NATSMain() {
	text := os.Getenv(natsNodeVar)
	if text == "" {
		return
	}
	if err := serveNATS(text); err != nil {
		fmt.Fprintln(os.Stderr, "nats-server:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveNATS(text string) error {
	var node natsNode
	if err := json.Unmarshal([]byte(text), &node); err != nil {
		return err
	}
	o := &server.Options{
		ServerName: node.Name, Host: "127.0.0.1", Port: node.Port,
		NoSigs: true, NoLog: true, JetStream: true, StoreDir: node.Store,
	}
	if node.Cluster > 0 {
		o.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: node.Cluster}
		for _, port := range node.Routes {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: loopback(port)})
		}
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.Start()
	s.WaitForShutdown()
	return nil
}

// NATSProcesses starts a cluster of n servers, or one that is alone, and
// returns when they take connections. A cluster may need a moment more for
// its first leader.
func NATSProcesses(t testing.TB, n int) []*NATSProcess {
	t.Helper()
	ports := freePorts(t, 2*n)
	all := make([]*NATSProcess, n)
	for i := range all {
		p := &NATSProcess{Addr: loopback(ports[i]), node: natsNode{Name: fmt.Sprint("s", i), Store: t.TempDir(), Port: ports[i]}}
		if n > 1 {
			p.node.Cluster, p.node.Routes = ports[n+i], ports[n:]
		}
		t.Cleanup(p.Stop)
		if err := p.Launch(); err != nil {
			t.Fatal(err)
		}
		all[i] = p
	}
	return all
}

// Launch starts a server that was stopped, with its data.
func (p *NATSProcess) Launch() error {
	told, err := json.Marshal(p.node)
	if err != nil {
		return err
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), natsNodeVar+"="+string(told))
	started, err := start(command)
	if err != nil {
		return err
	}
	if err := listening(started, p.Addr); err != nil {
		started.kill()
		return fmt.Errorf("nats-server: %w; it printed:\n%s", err, started.out)
	}
	p.process = started
	return nil
}

// listening waits until the process takes connections.
func listening(p *process, addr string) error {
	for deadline := time.Now().Add(bootTimeout); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.ended:
			return errors.New("it has ended")
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", bootTimeout, err)
		}
	}
}

// Stop kills the server. What it has acknowledged is the kernel's.
func (p *NATSProcess) Stop() {
	if p.process != nil {
		p.process.kill()
		p.process = nil
	}
}
