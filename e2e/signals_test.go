//go:build unix

package e2e

import (
	"cmp"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// slowNode answers when it is released.
func slowNode(t *testing.T) (addr string, begun chan struct{}, release func()) {
	t.Helper()
	begun, end := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
		w.Header().Set(contentType, jsonType)
		_, _ = w.Write([]byte(`{"id":0,"result":{"msg":"late"}}`))
	}))
	t.Cleanup(s.Close)
	released := false
	release = func() {
		if !released {
			released = true
			close(end)
		}
	}
	t.Cleanup(release)
	return s.Listener.Addr().String(), begun, release
}

// testStop is the order of an orderly stop, seen from outside.
func testStop(t *testing.T, w world) {
	const name = "stop.app"
	other := w.sidecar(t)
	app := newGreeter(t)
	node, begun, release := slowNode(t)
	s := w.launch(t, "--namespace=stop", "--server_name="+name, "--server_address="+app.addr, "--drain_delay=700ms", "--shutdown_grace=8s")
	s.awaitReady()
	s.register("", "stop.slow", "1", node)
	within(t, patient, "the application to be registered", func() bool { return other.knows(name) })
	subscriber, watcher := s.subscribe("stop", ""), s.open("/registry?service=nobody")
	slow := make(chan answer, 1)
	go func() { slow <- s.post("/slow/say/hello", john) }()
	<-begun

	s.signal(syscall.SIGTERM)
	within(t, patient, "the application to be deregistered", func() bool { return !other.knows(name) })
	s.post("/app/say/hello", john).refused(t, 404, name) // it is answered, and the answer is true
	s.post("/broker?topic=stop", "last").is(t, 200, "")
	if m := subscriber.message(); string(m.Body) != "last" {
		t.Errorf("message %v", m)
	}
	within(t, patient, "the listener to be closed", func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			return true
		}
		_ = conn.Close() // it was only to see
		return false
	})
	select {
	case a := <-slow:
		t.Errorf("the request in flight was cut: %d %s", a.status, a.body)
	default:
	}
	release()
	(<-slow).is(t, 200, `{"msg":"late"}`)
	for what, k := range map[string]*socket{"subscriber": subscriber, "watcher": watcher} {
		if err := <-k.ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
			t.Errorf("%s: ended with %v, want 1001", what, err)
		}
	}
	if status := s.wait(patient); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

// testSecondSignal has a request that never ends.
func testSecondSignal(t *testing.T, w world) {
	node, begun, _ := slowNode(t)
	s := w.launch(t, "--namespace=second", "--shutdown_grace=60s", "--client_request_timeout=60s")
	s.awaitReady()
	s.register("", "second.slow", "1", node)
	done := make(chan struct{})
	go func() { defer close(done); s.post("/slow/say/hello", john) }()
	<-begun
	s.signal(syscall.SIGTERM)
	within(t, patient, "the stop to begin", func() bool { return strings.Contains(s.log.String(), "msg=stopping") })
	select {
	case <-s.done:
		t.Fatal("it ended with a request in flight")
	case <-time.After(100 * time.Millisecond):
	}
	s.signal(syscall.SIGTERM)
	if status := s.wait(patient); status != 128+int(syscall.SIGTERM) {
		t.Errorf("exit status %d, want 143", status)
	}
	<-done
}

// Two signals at once are one: timeout(1) sends the same to a process and to
// its group. They differ here, so that the kernel does not make one of them.
func TestSignalTwiceAtOnce(t *testing.T) {
	t.Parallel()
	s := newWorld(t, noConsul).launch(t)
	s.awaitReady()
	s.signal(syscall.SIGTERM)
	s.signal(syscall.SIGINT)
	if status := s.wait(patient); status != 0 || !strings.Contains(s.log.String(), "msg=stopped") {
		t.Errorf("exit status %d, log %s", status, s.log.String())
	}
}

// A request that does not end is cut at the deadline, and the exit says so.
func TestGrace(t *testing.T) {
	t.Parallel()
	node, begun, _ := slowNode(t)
	s := newWorld(t, noConsul).launch(t, "--shutdown_grace=500ms", "--client_request_timeout=60s")
	s.awaitReady()
	s.register("", "go.micro.srv.slow", "1", node)
	done := make(chan struct{})
	go func() { defer close(done); s.post("/slow/say/hello", john) }()
	<-begun
	stopping := time.Now()
	s.signal(syscall.SIGTERM)
	if status := s.wait(patient); status != 1 || !strings.Contains(s.log.String(), "cut off") {
		t.Errorf("exit status %d after %v, log %s", status, time.Since(stopping), s.log.String())
	}
	<-done
}

func TestUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	dir := t.TempDir() + "/data"
	w = w.with("MICRO_DATA_DIR=" + dir)
	for args, part := range map[string]string{
		"sidecar --no_such_flag":                  "no_such_flag",
		"sidecar --client_request_timeout=soon":   "client_request_timeout",
		"sidecar --server_name=foo":               "--server_address",
		"sidecar --server_address=127.0.0.1:9090": "--server_name",
		"sidecar --healthcheck_interval=0s":       "healthcheck_interval",
		"sidecar --register_ttl=x":                "register_ttl",
		"sidecar --address=nowhere":               "address",
		"sidecar --handler=magic":                 "handler",
		"sidecar --registry=zookeeper":            "consul, ",
		"list":                                    "services", "watch nodes": "services",
		"sidecar --config=/nowhere/micro.yaml":                      "micro.yaml",
		"--enable_acme --acme_hosts=not/a/host sidecar":             "--acme_hosts",
		"--enable_tls --tls_cert_file=/a --tls_key_file=/b sidecar": "--tls_cert_file",
		"call": "SERVICE", "publish": "TOPIC", "get service": "NAME", "nosuch": "nosuch",
	} {
		w.fails(t, 2, part, strings.Fields(args)...)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("wrong usage made the data directory")
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for flag, other := range map[string]string{"--address": "", "--admin_address": "--address=127.0.0.1:0"} {
		w := newWorld(t, noConsul)
		p := w.micro(t, "sidecar", flag+"="+taken.Addr().String(), cmp.Or(other, "--enable_stats"))
		if status := p.wait(patient); status != 1 {
			t.Errorf("exit status %d, want 1", status)
		}
		var plain []string
		for line := range strings.Lines(p.log.String()) {
			if !strings.HasPrefix(line, "time=") {
				plain = append(plain, line)
			}
		}
		if want := "micro: " + taken.Addr().String() + " is in use by another program; choose another with " + flag + "\n"; len(plain) != 1 || plain[0] != want {
			t.Errorf("it said %q, want %q", plain, want)
		}
	}
}
