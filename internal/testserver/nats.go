package testserver

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// NATSServer is a NATS server with JetStream in this process, perhaps one of a
// cluster.
type NATSServer struct {
	// Addr is its host and port for clients. It stays the same.
	Addr string

	t       testing.TB
	options server.Options
	server  *server.Server // nil while it is stopped
}

// NATS starts a server and returns when it answers. refine changes its options
// before; it is stopped when the test ends.
func NATS(t testing.TB, refine ...func(*server.Options)) *NATSServer {
	t.Helper()
	return natsCluster(t, 1, refine...)[0]
}

// NATSCluster starts a cluster of n servers and returns when JetStream has a
// leader.
func NATSCluster(t testing.TB, n int) []*NATSServer {
	t.Helper()
	return natsCluster(t, n)
}

func natsCluster(t testing.TB, n int, refine ...func(*server.Options)) []*NATSServer {
	t.Helper()
	ports := freePorts(t, 2*n)
	var routes []*url.URL
	for i := range n {
		routes = append(routes, &url.URL{Scheme: "nats", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[n+i]))})
	}
	var all []*NATSServer
	for i := range n {
		s := &NATSServer{t: t, Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i]))}
		s.options = server.Options{
			ServerName: fmt.Sprint("s", i), Host: "127.0.0.1", Port: ports[i],
			NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
		}
		if n > 1 {
			s.options.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[n+i]}
			s.options.Routes = routes
		}
		for _, f := range refine {
			f(&s.options)
		}
		t.Cleanup(s.Stop)
		s.launch()
		all = append(all, s)
	}
	for _, s := range all {
		s.await()
	}
	if n > 1 {
		awaitNATS(t, "a leader", func() bool {
			for _, s := range all {
				if s.server.JetStreamIsLeader() {
					return len(s.server.JetStreamClusterPeers()) == n
				}
			}
			return false
		})
	}
	return all
}

// Stop shuts the server down. What it stored is on disk.
func (s *NATSServer) Stop() {
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
		s.server = nil
	}
}

// Start starts a server that was stopped, on the same port.
func (s *NATSServer) Start() {
	s.t.Helper()
	s.launch()
	s.await()
}

// Wipe has a stopped server begin anew, empty.
func (s *NATSServer) Wipe() {
	s.t.Helper()
	s.options.StoreDir = s.t.TempDir()
}

func (s *NATSServer) launch() {
	s.t.Helper()
	options := s.options // the server changes what it is given
	started, err := server.NewServer(&options)
	if err != nil {
		s.t.Fatalf("nats-server: %v", err)
	}
	started.Start()
	s.server = started
}

func (s *NATSServer) await() {
	s.t.Helper()
	if !s.server.ReadyForConnections(startTimeout) {
		s.t.Fatal("nats-server is not ready")
	}
}

func awaitNATS(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(startTimeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("nats-server: no %s within %v", what, startTimeout)
		}
	}
}

// Current reports whether the server has all of a key-value bucket that it is
// to keep.
func (s *NATSServer) Current(bucket string) bool {
	account := s.server.GlobalAccount()
	return account != nil && s.server.JetStreamIsStreamCurrent(account.Name, "KV_"+bucket)
}
