//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Connections on which nothing is under way do not hold up the stop: idle ones,
// half a request head, one whose client has shut down its half, and one that
// was never used.
func TestStopWithOpenConnections(t *testing.T) {
	t.Parallel()
	const grace = 40 * time.Second
	s := newWorld(t, noConsul).sidecar(t, "--shutdown_grace="+grace.String())
	dial := func(say string, halfClose bool) net.Conn {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, say); err != nil {
			t.Fatal(err)
		}
		if halfClose {
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		return conn
	}
	whole := "GET /registry HTTP/1.1\r\nHost: localhost\r\n\r\n"
	dial("", false)
	dial("", true)
	dial("POST /greeter/say/hello HTTP/1.1\r\nHost: localh", false)
	dial("POST /greeter/say/hello HTTP/1.1\r\nHost: localh", true)
	dial(whole, true) // its answer is never read
	for range 2 {
		answered := dial(whole, false)
		resp, err := http.ReadResponse(bufio.NewReader(answered), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v, %v", resp, err)
		}
		_ = resp.Body.Close()
	}
	begun := time.Now()
	s.stop()
	if took := time.Since(begun); took > grace/4 {
		t.Errorf("the stop took %v", took)
	}
}

// notifySocket is a service manager that notes what it is told.
func notifySocket(t *testing.T) (path string, told func() []string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "micro-") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	var lines []string
	return path, func() []string {
		buf := make([]byte, 4096)
		for {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond)) // it is open
			n, err := conn.Read(buf)
			if err != nil {
				return lines
			}
			lines = append(lines, strings.Split(string(buf[:n]), "\n")...)
		}
	}
}

// The service manager hears of readiness once the application is, of life, and
// of the stop.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	socket, told := notifySocket(t)
	c := newWorld(t, noConsul).with("NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000").child(t, "managed.app")
	within(t, patient, "READY=1", func() bool { return slices.Contains(told(), "READY=1") })
	if !c.serving() {
		t.Error("ready, and the application does not serve")
	}
	within(t, patient, "three signs of life", func() bool {
		return strings.Count(strings.Join(told(), "\n"), "WATCHDOG=1") >= 3
	})
	c.signal(syscall.SIGTERM)
	if status := c.wait(patient); status != 0 {
		t.Errorf("exit status %d", status)
	}
	all := told()
	if at := slices.Index(all, "STOPPING=1"); at < 0 || slices.Contains(all[at:], "READY=1") {
		t.Errorf("told %q", all)
	}
	if want := "serving " + c.addr + " \n"; !strings.HasPrefix(c.out.String(), want) {
		t.Errorf("the application said %q, want %q: the socket is not for it", c.out.String(), want)
	}
}

// The access log's file can be moved away: at SIGHUP there is a new one, with a
// configuration file and without.
func TestAccessLogIsRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	config := filepath.Join(w.home, "rotated.yaml")
	if err := os.WriteFile(config, []byte("namespace: rotated\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, more := range map[string][]string{"bare": nil, "configured": {"--config=" + config}} {
		path := filepath.Join(w.home, name+".log")
		s := w.sidecar(t, append(more, "--access_log="+path)...)
		logged := func(path, text string) bool {
			got, _ := os.ReadFile(path) // it may not be there yet
			return strings.Contains(string(got), text)
		}
		s.ask("GET", "/before", "")
		within(t, patient, name+": the first line", func() bool { return logged(path, `"/before"`) })
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		s.signal(syscall.SIGHUP)
		within(t, patient, name+": a new file", func() bool { _, err := os.Stat(path); return err == nil })
		s.ask("GET", "/after", "")
		within(t, patient, name+": a line in it", func() bool { return logged(path, `"/after"`) })
		if logged(path, `"/before"`) || logged(path+".1", `"/after"`) {
			t.Errorf("%s: a line is in the wrong file", name)
		}
	}
}

// The file is read again when it changes and at SIGHUP; what is wrong changes
// nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	a, b := newGreeter(t), newGreeter(t)
	path := filepath.Join(w.home, "micro.yaml")
	write := func(format string, args ...any) {
		t.Helper()
		next := path + ".next"
		if err := os.WriteFile(next, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	const apps = `namespace: %s
cors: [%s]
applications:
  - {name: first.app, address: "%s", healthcheck: {url: "http://%[3]s/health", interval: 20ms, fall: %d}}
`
	write(apps, "first", "https://a.example", a.addr, 1000)
	s := w.sidecar(t, "--config="+path)
	within(t, patient, "the first application", func() bool { return s.knows("first.app") })
	watch := s.open("/registry?service=first.app")
	allowed := func(origin string) bool { return s.ask("GET", "/registry", "", "Origin", origin).status == 200 }
	if !allowed("https://a.example") || allowed("https://b.example") {
		t.Error("the first file does not count")
	}
	load := s.load("/rpc", `{"service":"first.app","method":"Say.Hello","request":`+john+`}`, contentType, jsonType)

	write(apps+"  - {name: second.app, address: %[5]q}\nmax_body_size: 1MiB\n", "second", "https://b.example", a.addr, 1, b.addr)
	s.signal(syscall.SIGHUP)
	within(t, patient, "the second application", func() bool { return s.knows("second.app") })
	if allowed("https://a.example") || !allowed("https://b.example") {
		t.Error("cors was not reloaded")
	}
	if text := s.log.String(); !strings.Contains(text, `msg="these settings take effect at the next start" settings=max_body_size`) {
		t.Errorf("nothing says what needs a restart: %s", text)
	}
	write("corse: x\n")
	within(t, patient, "the mistake to be told", func() bool {
		return strings.Contains(s.log.String(), `micro.yaml:1: unknown setting \"corse\" (did you mean cors?)`)
	})
	if !allowed("https://b.example") || !s.knows("second.app") {
		t.Error("a mistake changed something")
	}
	load.clean("calls during reloads")
	// The health check of the first application goes on with its new threshold.
	a.health.Store(500)
	within(t, patient, "the application to be taken out", func() bool { return !s.knows("first.app") })
	a.health.Store(200)
	within(t, patient, "the application to be put back", func() bool { return s.knows("first.app") })
	watch.awaitChange("delete", "first.app")

	write("namespace: third\n") // by itself, without a signal
	within(t, patient, "the applications to be gone", func() bool { return !s.knows("first.app") && !s.knows("second.app") })
	if allowed("https://b.example") {
		t.Error("cors is still allowed")
	}
}
