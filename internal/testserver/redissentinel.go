package testserver

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// RedisReplicas starts n Redis servers, the first of which the others follow,
// and a Sentinel that knows them as "main" and has another followed when the
// one that is dies for a second. It returns the Sentinel's address, too.
func RedisReplicas(t testing.TB, n int) (servers []*RedisServer, sentinel string) {
	t.Helper()
	first := Redis(t)
	host, port, err := net.SplitHostPort(first.Addr)
	if err != nil {
		t.Fatal(err)
	}
	servers = []*RedisServer{first}
	for range n - 1 {
		servers = append(servers, Redis(t, "--replicaof", host, port))
	}
	at := freePorts(t, 1)[0]
	config := filepath.Join(t.TempDir(), "sentinel.conf") // it writes into it what it finds out
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\nsentinel monitor main %s %s 1\n"+
		"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n", at, filepath.Dir(config), host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := start(exec.Command(first.path, config, "--sentinel"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	sentinel = loopback(at)
	if err := p.await(startTimeout, func() error { return pingRedis(sentinel) }); err != nil {
		t.Fatalf("start a Redis Sentinel: %v", err)
	}
	return servers, sentinel
}
