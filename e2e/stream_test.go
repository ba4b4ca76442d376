//go:build unix

package e2e

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// testWatch compares what a WebSocket and server-sent events tell, to the
// letter, of what another sidecar registers.
func testWatch(t *testing.T, w world) {
	const name = "watch.svc"
	a, b := w.sidecar(t), w.sidecar(t)
	a.register("", "watch.before", "1", "127.0.0.1:1")
	all, one := b.open("/registry"), b.open("/registry?service="+name)
	events := b.events("/registry?service=" + name)

	one1 := `{"name":"` + name + `","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"1","address":"127.0.0.1","port":7,"metadata":{}}]}`
	both := `{"name":"` + name + `","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"1","address":"127.0.0.1","port":7,"metadata":{}},{"id":"2","address":"127.0.0.1","port":8,"metadata":{}}]}`
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { a.register("", name, "1", "127.0.0.1:7") }, `{"Action":"create","Service":` + one1 + `}`},
		{func() { a.register("", name, "2", "127.0.0.1:8") }, `{"Action":"update","Service":` + both + `}`},
		{func() { a.ask("DELETE", "/registry", `{"Name":"`+name+`","Nodes":[{"Id":"2"}]}`).is(t, 200, "") }, `{"Action":"update","Service":` + one1 + `}`},
		{func() { a.ask("DELETE", "/registry", `{"Name":"`+name+`","Nodes":[{"Id":"1"}]}`).is(t, 200, "") }, `{"Action":"delete","Service":` + one1 + `}`},
	} {
		step.do()
		for what, frame := range map[string]string{"socket": string(one.next()), "events": receiveEvent(t, events), "all": all.nextAbout(name)} {
			if !sameJSON(frame, step.want) {
				t.Errorf("%s: got %s, want %s", what, frame, step.want)
			}
		}
	}
	one.quiet("one change too many")
}

// nextAbout returns the next change of a service, past those of others.
func (k *socket) nextAbout(service string) string {
	k.t.Helper()
	for {
		if frame := string(k.next()); strings.Contains(frame, `"`+service+`"`) {
			return frame
		}
	}
}

// events reads a stream of server-sent events; comments are passed over.
func (s *sidecar) events(path string) <-chan string {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.addr+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get(contentType) != "text/event-stream" {
		s.t.Fatalf("%s: %d %v", path, resp.StatusCode, resp.Header)
	}
	out, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				out <- data
			}
		}
	}()
	s.t.Cleanup(func() {
		cancel()
		_ = resp.Body.Close() // it was cut
		<-done
	})
	return out
}

func receiveEvent(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case event := <-from:
		return event
	case <-time.After(patient):
		t.Fatal("no event came")
		return ""
	}
}

// TestGarbage sends what is no request to the sidecar's listener.
func TestGarbage(t *testing.T) {
	t.Parallel()
	s := newWorld(t, noConsul).sidecar(t)
	for _, text := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", // the beginning of TLS
		"nonsense\r\n\r\n",
		"GET /livez HTTP/9.9\r\nHost: localhost\r\n\r\n",
		"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /livez HTTP/1.1\r\n\r\n",
		"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"POST /registry HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
		"POST /registry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /registry HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /greeter/say/hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET /broker?topic=t HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 7\r\nSec-WebSocket-Key: x\r\n\r\n",
		"GET /registry HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // no answer is an error below
		_, _ = conn.Write([]byte(text))                        // it may be cut off before its end
		head := make([]byte, 12)
		if _, err := io.ReadFull(conn, head); err == nil && !strings.HasPrefix(string(head), "HTTP/1.1 4") && !strings.HasPrefix(string(head), "HTTP/1.1 5") {
			t.Errorf("%.60q: answered %q", text, head)
		} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // the connection's own
			t.Errorf("%.60q: no answer", text)
		}
		_ = conn.Close() // nothing more is wanted of it
	}
	s.get("/livez").is(t, 200, "ok\n")
	s.get("/readyz").is(t, 200, "ok\n")
}
