package examples

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/examples/internal/process"
)

// sidecar is a sidecar that can be started again where it was.
type sidecar struct {
	micro, address, data string
	more                 []string // arguments
	process              *process.Process
}

// newSidecar starts a sidecar that runs until the test ends.
func newSidecar(t *testing.T, micro string, more ...string) *sidecar {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{micro: micro, address: l.Addr().String(), data: t.TempDir(), more: more}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.up(t)
	t.Cleanup(func() {
		if err := s.process.Stop(patient); err != nil {
			t.Errorf("%v\n%s", err, s.process.Output())
		}
	})
	return s
}

// up starts the sidecar and waits until it is ready.
func (s *sidecar) up(t *testing.T) {
	t.Helper()
	var err error
	if s.process, err = process.Start(nil, s.micro, append(process.SidecarArgs(s.address, s.data), s.more...)...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := process.Ready(ctx, s.process, s.address); err != nil {
		s.process.Kill()
		t.Fatal(err)
	}
}

// start runs a program of the examples until the test ends.
func (s *sidecar) start(t *testing.T, line []string) *process.Process {
	t.Helper()
	return start(t, line, "SIDECAR=http://"+s.address, "TTL="+strconv.Itoa(int(ttl.Seconds())))
}

// start runs a program with additions to its environment until the test ends.
func start(t *testing.T, line []string, env ...string) *process.Process {
	t.Helper()
	if _, err := exec.LookPath(line[0]); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: CI runs the examples of every language", err)
		}
		t.Skipf("%v: install it to run this example", err)
	}
	p, err := process.Start(env, line[0], line[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// runClient runs the client to its end and reads what it says.
func (s *sidecar) runClient(t *testing.T, line []string) {
	t.Helper()
	p := s.start(t, append(line, "Mary"))
	select {
	case <-p.Ended():
	case <-time.After(patient):
		t.Fatalf("%s does not end:\n%s", line, p.Output())
	}
	out := p.Output()
	if err := p.Stop(patient); err != nil || strings.Count(out, "Hello Mary") != 3 || !strings.Contains(out, "published") {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
}

// request is sent to the sidecar.
type request struct{ method, path, body, handler string }

func post(path, body string) request { return request{http.MethodPost, path, body, ""} }
func proxied(path string) request    { return request{http.MethodGet, path, "", "proxy"} }

// ask sends r and returns the answer.
func (s *sidecar) ask(t *testing.T, r request) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+s.address+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.handler != "" {
		req.Header.Set("Micro-Handler", r.handler)
	}
	return send(t, req)
}

// send uses a connection of its own, so that none is left over.
func send(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp.StatusCode, string(body)
}

func (s *sidecar) expect(t *testing.T, r request, status int, words ...string) {
	t.Helper()
	got, body := s.ask(t, r)
	if got != status {
		t.Errorf("%s %s %s: %d %s, expected %d", r.method, r.path, r.body, got, body, status)
		return
	}
	for _, word := range words {
		if !strings.Contains(body, word) {
			t.Errorf("%s %s %s: %d %s, expected %q in it", r.method, r.path, r.body, got, body, word)
		}
	}
}

// addresses lists where the service's nodes are.
func (s *sidecar) addresses(t *testing.T, service string) []string {
	t.Helper()
	status, body := s.ask(t, request{http.MethodGet, "/registry?service=" + service, "", ""})
	if status == http.StatusNotFound {
		return nil
	}
	var got struct {
		Nodes []struct {
			Address string
			Port    int
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
		t.Fatalf("GET /registry?service=%s: %d %s (%v)", service, status, body, err)
	}
	var out []string
	for _, n := range got.Nodes {
		out = append(out, net.JoinHostPort(n.Address, strconv.Itoa(n.Port)))
	}
	return out
}

// registered waits for the service's only node.
func (s *sidecar) registered(t *testing.T, service string) string {
	t.Helper()
	var at []string
	within(t, patient, service+" to be registered", func() bool {
		at = s.addresses(t, service)
		return len(at) == 1
	})
	return at[0]
}

func (s *sidecar) gone(t *testing.T, service string, limit time.Duration) {
	t.Helper()
	within(t, limit, service+" to be gone", func() bool { return len(s.addresses(t, service)) == 0 })
}

// within waits for a condition.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited %v for %s", limit, what)
		case <-tick.C:
		}
	}
}
