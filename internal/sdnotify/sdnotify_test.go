//go:build linux

package sdnotify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is a service manager's socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// The time is that of the clock that systemd compares it with, which goes on in
// all processes alike.
func TestReloading(t *testing.T) {
	var last int64
	for range 2 {
		state, usec, ok := strings.Cut(Reloading(), "\nMONOTONIC_USEC=")
		now, err := strconv.ParseInt(usec, 10, 64)
		up, readErr := os.ReadFile("/proc/uptime") // since boot, sleep included
		seconds, _, _ := strings.Cut(string(up), ".")
		most, parseErr := strconv.ParseInt(seconds, 10, 64)
		if state != "RELOADING=1" || !ok || errors.Join(err, readErr, parseErr) != nil || now < last || now <= 0 || now > (most+2)*1_000_000 {
			t.Errorf("%q after %d with %s s since boot: %v", Reloading(), last, seconds, errors.Join(err, readErr, parseErr))
		}
		last = now
	}
}

func TestTell(t *testing.T) {
	dir, err := os.MkdirTemp("", "") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, name := range []string{filepath.Join(dir, "notify"), "@micro-test-" + strconv.Itoa(os.Getpid())} {
		conn := manager(t, name)
		n, err := New(env("NOTIFY_SOCKET", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Tell(Ready, Status("serving"), Extend(1500*time.Millisecond)); err != nil {
			t.Error(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		got, err := conn.Read(buf)
		if want := "READY=1\nSTATUS=serving\nEXTEND_TIMEOUT_USEC=1500000"; err != nil || string(buf[:got]) != want {
			t.Errorf("%s: %q, %v, want %q", name, buf[:got], err, want)
		}
	}
	gone, err := New(env("NOTIFY_SOCKET", filepath.Join(dir, "gone")))
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Tell(Ready); err == nil {
		t.Error("nobody was told, and no error says so")
	}
}

func TestWithoutManager(t *testing.T) {
	n, err := New(env())
	if n != nil || err != nil || n.Tell(Ready) != nil || n.Period() != 0 {
		t.Errorf("%v, %v", n, err)
	}
}

func TestPeriod(t *testing.T) {
	const socket = "@x"
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
		fails     bool
	}{
		{"", "", 0, false},
		{"2000000", "", 2 * time.Second, false},
		{"2000000", strconv.Itoa(os.Getpid()), 2 * time.Second, false},
		{"2000000", "1", 0, false}, // meant for another process
		{"0", "", 0, true},
		{"-5", "", 0, true},
		{"soon", "", 0, true},
		{"99999999999999999", "", 0, true},
	} {
		n, err := New(env("NOTIFY_SOCKET", socket, "WATCHDOG_USEC", test.usec, "WATCHDOG_PID", test.pid))
		if (err != nil) != test.fails || err == nil && n.Period() != test.want {
			t.Errorf("%q %q: %v, %v", test.usec, test.pid, n.Period(), err)
		}
	}
	if _, err := New(env("NOTIFY_SOCKET", "relative")); err == nil {
		t.Error("a relative path is taken")
	}
}
