//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// RabbitMQCluster starts a cluster of n nodes that share nothing but a cookie
// and a port mapper, and returns when all have joined.
func RabbitMQCluster(t testing.TB, n int) []*RabbitMQServer {
	t.Helper()
	path, mapper := rabbitProgram(find(t, "rabbitmq-server", "MICRO_TEST_RABBITMQ")), find(t, "epmd", "MICRO_TEST_EPMD")
	home := t.TempDir()
	ports := freePorts(t, 2*n+1)
	names := make([]string, n)
	config := "cluster_formation.peer_discovery_backend = classic_config\n"
	for i := range names {
		names[i] = fmt.Sprintf("rabbit_%08x@localhost", rand.Uint32())
		config += fmt.Sprintf("cluster_formation.classic_config.nodes.%d = %s\n", i+1, names[i])
	}
	for file, text := range map[string]string{"plugins": "[].\n", "rabbitmq.conf": config} {
		if err := os.WriteFile(filepath.Join(home, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]*RabbitMQServer, n)
	for i := range all {
		s := &RabbitMQServer{t: t, path: path, dir: filepath.Join(home, fmt.Sprint(i)), Addr: loopback(ports[i])}
		t.Cleanup(s.Stop)
		s.env = append(s.environment([]int{ports[i], ports[n+i], ports[2*n]}, filepath.Join(home, "plugins")),
			"HOME="+home, "RABBITMQ_NODENAME="+names[i], "RABBITMQ_CONFIG_FILE="+filepath.Join(home, "rabbitmq"),
			// Several nodes on few processors: none of them spins while it waits.
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
		)
		all[i] = s
	}
	command := exec.Command(mapper)
	command.Env = all[0].env
	epmd, err := start(command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(epmd.kill)
	// The first one is a cluster; the others find it and join.
	if err := all[0].Launch(); err != nil {
		t.Fatal(err)
	}
	var joining sync.WaitGroup
	errs := make([]error, n)
	for i, s := range all[1:] {
		joining.Go(func() { errs[i] = s.Launch() })
	}
	joining.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	status := all[0].Control(t, "cluster_status")
	_, running, _ := strings.Cut(status, "Running Nodes")
	for _, name := range names {
		if !strings.Contains(running, name) {
			t.Fatalf("%s is not in the cluster:\n%s", name, status)
		}
	}
	return all
}

// Launch starts a node that was stopped, with its data.
func (s *RabbitMQServer) Launch() error {
	if err := tries(s.start); err != nil { // the mapper may not yet have noticed that the old one is gone
		return fmt.Errorf("start rabbitmq-server: %w", err)
	}
	return nil
}
