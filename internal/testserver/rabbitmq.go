//go:build unix

package testserver

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// RabbitMQServer is a RabbitMQ node that shares nothing with any other: it has
// its own name, data, cookie and port mapper, and no plug-ins.
type RabbitMQServer struct {
	// Addr is its host and port. It stays the same.
	Addr string

	t       testing.TB
	path    string
	dir     string
	env     []string
	epmd    *process // Erlang's port mapper
	process *process // nil while it is stopped
}

// bootTimeout is long: a node takes many seconds on a busy machine.
const bootTimeout = 90 * time.Second

// RabbitMQ starts a node and returns when it answers. It is killed when the
// test ends; its data goes with the test. The binary is rabbitmq-server on
// PATH, or what MICRO_TEST_RABBITMQ names. The user is guest, so is the
// password.
func RabbitMQ(t testing.TB) *RabbitMQServer {
	t.Helper()
	s := &RabbitMQServer{t: t, path: rabbitProgram(find(t, "rabbitmq-server", "MICRO_TEST_RABBITMQ")), dir: t.TempDir()}
	epmd := find(t, "epmd", "MICRO_TEST_EPMD")
	plugins := filepath.Join(s.dir, "plugins")
	if err := os.WriteFile(plugins, []byte("[].\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		s.stopEpmd()
	})
	err := tries(func() (err error) {
		ports := freePorts(t, 3)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
		s.env = s.environment(ports, plugins)
		s.stopEpmd()
		mapper := exec.Command(epmd)
		mapper.Env = s.env
		if s.epmd, err = start(mapper); err != nil {
			return err
		}
		return s.start()
	})
	if err != nil {
		t.Fatalf("start rabbitmq-server: %v", err)
	}
	return s
}

// rabbitProgram is what stands behind Debian's wrapper, which becomes another
// user and thereby loses the environment.
func rabbitProgram(path string) string {
	const debian = "/usr/lib/rabbitmq/bin"
	if own := filepath.Join(debian, filepath.Base(path)); filepath.Dir(path) == "/usr/sbin" {
		if _, err := os.Stat(own); err == nil {
			return own
		}
	}
	return path
}

// environment is all that the node is told: its port for clients, for other
// nodes, and that of its port mapper.
func (s *RabbitMQServer) environment(ports []int, plugins string) []string {
	return append(os.Environ(),
		"HOME="+s.dir,              // of the cookie
		"ERL_CRASH_DUMP_SECONDS=0", // a killed node writes none
		"ERL_EPMD_PORT="+strconv.Itoa(ports[2]), "ERL_EPMD_ADDRESS=127.0.0.1",
		fmt.Sprintf("RABBITMQ_NODENAME=rabbit_%08x@localhost", rand.Uint32()),
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+strconv.Itoa(ports[0]),
		"RABBITMQ_DIST_PORT="+strconv.Itoa(ports[1]),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_MNESIA_BASE="+filepath.Join(s.dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(s.dir, "log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_ENABLED_PLUGINS_FILE="+plugins, "RABBITMQ_PID_FILE="+filepath.Join(s.dir, "pid"),
		"RABBITMQ_CONF_ENV_FILE="+filepath.Join(s.dir, "none"), "RABBITMQ_CONFIG_FILE="+filepath.Join(s.dir, "rabbitmq"),
	)
}

// Stop kills the node. What it has confirmed is on its disk.
func (s *RabbitMQServer) Stop() {
	if s.process != nil {
		s.process.killGroup()
		s.process = nil
	}
}

func (s *RabbitMQServer) stopEpmd() {
	if s.epmd != nil {
		s.epmd.kill()
		s.epmd = nil
	}
}

// Restart starts the node again, with its data. A running one is killed first.
func (s *RabbitMQServer) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.Launch(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *RabbitMQServer) start() error {
	cmd := exec.Command(s.path)
	cmd.Env = s.env
	p, err := startGroup(cmd)
	if err != nil {
		return err
	}
	if err := p.await(bootTimeout, func() error { return greet(s.Addr) }); err != nil { // which it does last
		p.killGroup()
		return err
	}
	s.process = p
	return nil
}

// greet begins to speak AMQP 0-9-1 and waits for the first byte of an answer.
func greet(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "AMQP\x00\x00\x09\x01"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// Control runs rabbitmqctl with the arguments and returns what it prints.
func (s *RabbitMQServer) Control(t testing.TB, args ...string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.path), "rabbitmqctl")
	cmd := exec.Command(path, append([]string{"--quiet"}, args...)...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("rabbitmqctl %q: %v\n%s", args, err, out)
	}
	return string(out)
}
