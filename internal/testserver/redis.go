package testserver

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RedisServer is a Redis server that writes every change to its disk.
type RedisServer struct {
	// Addr is its host and port. It stays the same.
	Addr string

	t       testing.TB
	path    string
	dir     string
	options []string
	process *process // nil while it is stopped
}

// Redis starts a server and returns when it answers. It is killed when the
// test ends; its data goes with the test. options are further settings, like
// "--maxmemory", "8mb". The binary is redis-server on PATH, or what
// MICRO_TEST_REDIS names.
func Redis(t testing.TB, options ...string) *RedisServer {
	t.Helper()
	s := &RedisServer{t: t, path: find(t, "redis-server", "MICRO_TEST_REDIS"), dir: t.TempDir(), options: options}
	t.Cleanup(s.Stop)
	err := tries(func() error {
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(freePorts(t, 1)[0]))
		return s.start()
	})
	if err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	return s
}

// Stop kills the server. What it has acknowledged is on its disk.
func (s *RedisServer) Stop() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Restart starts the server again, with its data. A running one is killed first.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.Launch(); err != nil {
		s.t.Fatal(err)
	}
}

// Launch starts a server that was stopped, with its data.
func (s *RedisServer) Launch() error {
	if err := tries(s.start); err != nil {
		return fmt.Errorf("start redis-server: %w", err)
	}
	return nil
}

func (s *RedisServer) start() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := append([]string{
		"--bind", host, "--port", port, "--dir", s.dir, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
	}, s.options...)
	p, err := start(exec.Command(s.path, args...))
	if err != nil {
		return err
	}
	if err := p.await(startTimeout, func() error { return pingRedis(s.Addr) }); err != nil { // its data is loaded
		p.kill()
		return err
	}
	s.process = p
	return nil
}

func pingRedis(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+PONG") {
		err = fmt.Errorf("it says %q", line)
	}
	return err
}

// Do sends a command, each part without spaces, and fails the test when the
// server calls it an error.
func (s *RedisServer) Do(t testing.TB, command ...string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr, startTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(command, " ")); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || strings.HasPrefix(line, "-") {
		t.Fatalf("redis %s: %q, %v", command, line, err)
	}
}
