package testserver

import (
	"fmt"
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

// EtcdServer is one member of an etcd cluster, perhaps its only one.
type EtcdServer struct {
	// Addr is the host and port for clients. It stays the same.
	Addr string

	t       testing.TB
	path    string
	dir     string
	args    []string
	health  string   // URL
	process *process // nil while it is stopped
}

// EtcdOptions refine a server.
type EtcdOptions struct {
	// Args are more of its command line.
	Args []string
	// Authority makes it speak TLS and ask clients for a certificate.
	Authority *Authority
}

// Etcd starts a cluster of one member and returns when it answers. It is
// killed when the test ends. The binary is etcd on PATH, or what
// MICRO_TEST_ETCD names.
func Etcd(t testing.TB, options ...EtcdOptions) *EtcdServer {
	t.Helper()
	return EtcdCluster(t, 1, options...)[0]
}

// EtcdCluster starts a cluster of n members.
func EtcdCluster(t testing.TB, n int, options ...EtcdOptions) []*EtcdServer {
	t.Helper()
	path := find(t, "etcd", "MICRO_TEST_ETCD")
	var members []*EtcdServer
	err := tries(func() error {
		members = newEtcdMembers(t, path, n, options...)
		return startAll(members)
	})
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	return members
}

// newEtcdMembers describes the members of a cluster.
func newEtcdMembers(t testing.TB, path string, n int, options ...EtcdOptions) []*EtcdServer {
	t.Helper()
	ports := freePorts(t, 3*n)
	peer := func(i int) string { return "http://127.0.0.1:" + strconv.Itoa(ports[n+i]) }
	health := func(i int) string { return "http://127.0.0.1:" + strconv.Itoa(ports[2*n+i]) }
	var cluster []string
	for i := range n {
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peer(i)))
	}
	scheme := "http"
	var more []string
	for _, o := range options {
		more = append(more, o.Args...)
		if o.Authority != nil {
			cert, key := o.Authority.Issue(time.Now().Add(time.Hour))
			scheme = "https"
			more = append(more, "--cert-file", cert, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", o.Authority.File)
		}
	}
	var members []*EtcdServer
	for i := range n {
		m := &EtcdServer{Addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])), t: t, path: path, dir: filepath.Join(t.TempDir(), "data")}
		m.args = append([]string{
			"--name", fmt.Sprint("m", i), "--data-dir", m.dir,
			"--listen-client-urls", scheme + "://" + m.Addr, "--advertise-client-urls", scheme + "://" + m.Addr,
			"--listen-peer-urls", peer(i), "--initial-advertise-peer-urls", peer(i),
			"--listen-metrics-urls", health(i), // and /health, without TLS
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-token", t.Name(),
			"--logger", "zap", "--log-level", "warn", "--unsafe-no-fsync",
		}, more...)
		m.health = health(i) + "/health"
		t.Cleanup(m.Stop)
		members = append(members, m)
	}
	return members
}

// startAll starts the members of a new cluster, which wait for each other. When
// it fails none is left running.
func startAll(members []*EtcdServer) (err error) {
	defer func() {
		for _, m := range members {
			if err != nil {
				m.Stop()
			}
		}
	}()
	for _, m := range members {
		if err := m.launch(); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := m.process.await(startTimeout, m.ready); err != nil {
			return err
		}
	}
	return nil
}

// Stop kills the member. What it was told is on disk.
func (s *EtcdServer) Stop() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Start starts a member that was stopped, with what is on disk.
func (s *EtcdServer) Start() {
	s.t.Helper()
	if err := tries(func() error { return startAll([]*EtcdServer{s}) }); err != nil {
		s.t.Fatalf("start etcd: %v", err)
	}
}

// Wipe removes what a stopped member has on disk.
func (s *EtcdServer) Wipe() {
	s.t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Fatal(err)
	}
}

func (s *EtcdServer) launch() error {
	cmd := exec.Command(s.path, s.args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "ETCD_UNSUPPORTED_ARCH=arm64"}
	p, err := start(cmd)
	if err == nil {
		s.process = p
	}
	return err
}

// ready reports whether the member has a leader and answers.
func (s *EtcdServer) ready() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
	response, err := client.Get(s.health)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("its health is %s", response.Status)
	}
	return nil
}
