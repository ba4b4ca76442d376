package testserver

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ConsulServer is a Consul agent in development mode: a server of its own,
// alone, that keeps everything in memory.
type ConsulServer struct {
	// Addr is the host and port of its HTTP API. It stays the same.
	Addr string

	t       testing.TB
	path    string
	options ConsulOptions
	process *process // nil while it is stopped
}

// ConsulOptions refine an agent.
type ConsulOptions struct {
	// Config is more configuration, in JSON.
	Config string
	// Token is a token that may read what the agent tells of itself.
	Token string
}

// Consul starts an agent and returns when it answers queries. It is killed
// when the test ends. The binary is consul on PATH, or what
// MICRO_TEST_CONSUL names, or .cache/bin/consul in the checkout.
func Consul(t testing.TB, options ...ConsulOptions) *ConsulServer {
	t.Helper()
	s := &ConsulServer{t: t, path: find(t, "consul", "MICRO_TEST_CONSUL")}
	for _, o := range options {
		s.options = o
	}
	t.Cleanup(s.Stop)
	err := tries(func() error {
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePorts(t, 1)[0]))
		return s.start()
	})
	if err != nil {
		t.Fatalf("start consul: %v", err)
	}
	return s
}

// Stop kills the agent. With it goes everything that was registered.
func (s *ConsulServer) Stop() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Restart starts an empty agent, with lower indexes, on the same address. A
// running one is stopped first.
func (s *ConsulServer) Restart() {
	s.t.Helper()
	s.Stop()
	if err := tries(s.start); err != nil {
		s.t.Fatalf("restart consul: %v", err)
	}
}

func (s *ConsulServer) start() error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	ports := freePorts(s.t, 2)
	cmd := exec.Command(s.path, "agent", "-dev", "-node", "test", "-log-level", "warn",
		"-bind", "127.0.0.1", "-client", "127.0.0.1", "-http-port", port,
		"-server-port", strconv.Itoa(ports[0]), "-serf-lan-port", strconv.Itoa(ports[1]),
		"-serf-wan-port", "-1", "-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1")
	cmd.Dir = s.t.TempDir()
	if s.options.Config != "" {
		if err := os.WriteFile(filepath.Join(cmd.Dir, "more.json"), []byte(s.options.Config), 0o600); err != nil {
			return err
		}
		cmd.Args = append(cmd.Args, "-config-file", "more.json")
	}
	cmd.Env = append(cmd.Environ(), "CONSUL_HTTP_TOKEN=", "CONSUL_HTTP_ADDR=")
	p, err := start(cmd)
	if err != nil {
		return err
	}
	if err := p.await(startTimeout, s.ready); err != nil {
		p.kill()
		return err
	}
	s.process = p
	return nil
}

// ready reports whether the agent has a leader and has registered itself.
func (s *ConsulServer) ready() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	response, err := client.Get("http://" + s.Addr + "/v1/health/service/consul?passing=1&token=" + s.options.Token)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), `"serfHealth"`) {
		return fmt.Errorf("it answers %s %s", response.Status, body)
	}
	return nil
}
