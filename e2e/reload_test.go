//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A reload that the service manager asked for is begun and ended for it, and a
// mistake is told.
func TestServiceManagerReloads(t *testing.T) {
	t.Parallel()
	socket, told := notifySocket(t)
	w := newWorld(t, noConsul).with("NOTIFY_SOCKET=" + socket)
	path := filepath.Join(w.home, "micro.yaml")
	if err := os.WriteFile(path, []byte("handler: rpc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := w.sidecar(t, "--config="+path)
	within(t, patient, "READY=1", func() bool { return slices.Contains(told(), "READY=1") })
	count := func(state string) int {
		n := 0
		for _, line := range told() {
			if line == state {
				n++
			}
		}
		return n
	}
	s.signal(syscall.SIGHUP)
	within(t, patient, "the end of the reload", func() bool { return count("READY=1") == 2 })
	lines := told()
	at := slices.Index(lines, "RELOADING=1")
	if at < 0 || !strings.HasPrefix(lines[at+1], "MONOTONIC_USEC=") || slices.Index(lines[at:], "READY=1") < 0 {
		t.Errorf("told %q", lines)
	}
	if err := os.WriteFile(path, []byte("handlr: rpc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	within(t, patient, "the mistake", func() bool {
		return slices.ContainsFunc(told(), func(line string) bool {
			return strings.HasPrefix(line, "STATUS=serving; the configuration was not reloaded: ") && strings.Contains(line, "did you mean handler?")
		})
	})
	if a, b := count("RELOADING=1"), count("READY=1"); a != b-1 {
		t.Errorf("%d reloads were begun, and %d ended", a, b-1)
	}
}

// Without a file there may be something to do at SIGHUP, too.
func TestServiceManagerReloadsWithoutFile(t *testing.T) {
	t.Parallel()
	socket, told := notifySocket(t)
	w := newWorld(t, noConsul).with("NOTIFY_SOCKET=" + socket)
	s := w.sidecar(t, "--access_log="+filepath.Join(w.home, "access.log"))
	within(t, patient, "READY=1", func() bool { return slices.Contains(told(), "READY=1") })
	s.signal(syscall.SIGHUP)
	within(t, patient, "the end of the reload", func() bool {
		lines := told()
		at := slices.Index(lines, "RELOADING=1")
		return at >= 0 && slices.Contains(lines[at:], "READY=1")
	})
}

// Subscriptions can change while messages come: none is lost, and none is posted
// to the old place once the new one has its first.
func TestReloadSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul).with("MICRO_REGISTRY=embedded")
	var mu sync.Mutex
	arrived := map[string]int{}
	late := 0
	started := map[string]bool{}
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		arrived[string(body)]++
		if started["/new"] && r.URL.Path == "/old" {
			late++
		}
		started[r.URL.Path] = true
	}))
	defer app.Close()
	path := filepath.Join(w.home, "micro.yaml")
	write := func(to string) {
		t.Helper()
		text := "subscribe:\n  - { topic: orders, queue: billing, concurrency: 4, ack_wait: 2s, url: \"" + app.URL + to + "\" }\n" +
			"  - { topic: others, queue: billing, url: \"" + app.URL + "/same\" }\n"
		next := path + ".next"
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	write("/old")
	s := w.sidecar(t, "--config="+path)
	// Before that what is published is for nobody.
	within(t, patient, "both queues", func() bool {
		return strings.Count(s.log.String(), "delivering messages to the application") == 2
	})
	has := func(to string) bool { mu.Lock(); defer mu.Unlock(); return started[to] }
	sent := 0
	publish := func(enough func() bool) {
		t.Helper()
		for end := time.Now().Add(patient); !enough(); {
			if time.Now().After(end) {
				t.Fatalf("after %d messages: %v; the log:\n%s", sent, arrived, s.log.String())
			}
			if a := s.ask("POST", "/broker?topic=orders", fmt.Sprint("order ", sent)); a.status != 200 {
				t.Fatalf("publish: %d %s", a.status, a.body)
			}
			sent++
		}
	}
	publish(func() bool { return has("/old") && sent >= 50 })
	write("/new")
	s.signal(syscall.SIGHUP)
	publish(func() bool { return has("/new") })
	for range 50 {
		s.ask("POST", "/broker?topic=orders", fmt.Sprint("order ", sent)).is(t, 200, "")
		sent++
	}
	s.ask("POST", "/broker?topic=others", "another").is(t, 200, "")
	within(t, patient, "all messages", func() bool { mu.Lock(); defer mu.Unlock(); return len(arrived) == sent+1 })
	mu.Lock()
	defer mu.Unlock()
	if late > 0 {
		t.Errorf("%d messages were posted to the old place after the first to the new one", late)
	}
	for body, n := range arrived {
		if n != 1 { // at least once is what is promised
			t.Logf("%q came %d times", body, n)
		}
	}
}
