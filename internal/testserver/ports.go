package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The ports that tests get are below those that systems give to connections and to
// listeners that ask for any: nobody comes by one while its server is not running.
const (
	firstPort = 12_000
	lastPort  = 32_000
)

// FreePort returns a loopback port at which nobody listens, for TCP and UDP. It is
// the test's until its end: no other test is given it, in this process or another.
func FreePort(t testing.TB) int {
	t.Helper()
	return freePorts(t, 1)[0]
}

// DeadAddr returns a loopback address at which nobody listens before the test ends.
func DeadAddr(t testing.TB) string {
	t.Helper()
	return loopback(FreePort(t))
}

// Listen listens at an address of [DeadAddr], or again at one that was listened at.
// A process that this one is starting just then has the last listener's port, too,
// until it runs: that is waited for.
func Listen(address string) (net.Listener, error) {
	for begun := time.Now(); ; {
		l, err := net.Listen("tcp", address)
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(begun) > 10*time.Second {
			return l, err
		}
		<-time.After(5 * time.Millisecond)
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts is FreePort for several.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		release, ok := reserve(port)
		if !ok {
			continue
		}
		if !isFree(port) {
			release()
			continue
		}
		t.Cleanup(release)
		ports = append(ports, port)
	}
	t.Fatal("no port is free")
	return nil
}

// reserve keeps other tests from a port: a name of Linux's abstract sockets belongs to
// whoever has it first, and to nobody when that process has ended. Elsewhere chance
// must do.
func reserve(port int) (release func(), ok bool) {
	if runtime.GOOS != "linux" {
		return func() {}, true
	}
	l, err := net.Listen("unix", fmt.Sprint("@micro-test-port-", port))
	if err != nil {
		return nil, false
	}
	return func() { _ = l.Close() }, true
}

func isFree(port int) bool {
	tcp, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", loopback(port))
	if err != nil {
		return false
	}
	_ = udp.Close() // it was never used
	return true
}
