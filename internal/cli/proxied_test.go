package cli

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/registry"
)

// through makes a sidecar of a handler and returns the flag that goes through it.
func through(t *testing.T, h http.HandlerFunc) string {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return "--proxy_address=" + server.URL
}

// A sidecar is reached on a unix socket, and named by it.
func TestThroughAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // is for other addresses
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "localhost" {
			t.Errorf("Host %q", r.Host)
		}
		if r.URL.Path != "/broker" {
			fmt.Fprint(w, `[{"name":"found"}]`)
			return
		}
		if conn, err := websocket.Accept(w, r, nil); err == nil {
			_ = conn.Close(websocket.StatusGoingAway, "the end")
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	for _, flag := range []string{"--proxy_address=unix:" + path, "--proxy_address=unix://" + path} {
		if got := works(t, someDrivers(t), nil, "list", "services", flag); got != "found\n" {
			t.Errorf("%s: %q", flag, got)
		}
		got := micro(t, someDrivers(t), nil, "subscribe", "t", flag)
		if got.status != exitFailure || !strings.HasSuffix(got.err, "the sidecar at unix:"+path+" ended the subscription: the end\n") {
			t.Errorf("%s: status %d, stderr %q", flag, got.status, got.err)
		}
	}
	fails(t, someDrivers(t), nil, "the sidecar at unix:"+path+"x: dial unix", "list", "services", "--proxy_address=unix:"+path+"x")
}

// Whatever a sidecar answers: its detail or its status, one line, exit 1.
func TestRefusals(t *testing.T) {
	tests := []struct {
		answer http.HandlerFunc
		want   string
	}{
		{func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"id":"go.micro.sidecar","code":404,"detail":"service x not found","status":"Not Found"}`)
		}, "micro: service x not found\n"},
		{func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>", http.StatusBadGateway)
		}, "the sidecar answered 502 Bad Gateway, and not as sidecars do: is there another server at --proxy_address?"},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		}, "the sidecar answered 302 Found"},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		}, "unexpected EOF"},
		{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	}
	commands := [][]string{
		{"list", "services"}, {"get", "service", "x"}, {"call", "x", "Y.Z"}, {"health", "x"}, {"stats", "x"},
		{"watch"}, {"subscribe", "t"}, {"publish", "t", "b"},
		{"register", "service", `{"name":"x","nodes":[{"id":"1","address":"h:1"}]}`},
		{"deregister", "service", `{"name":"x","nodes":[{"id":"1"}]}`},
	}
	for _, test := range tests {
		flag := through(t, test.answer)
		for _, command := range commands {
			if test.want == "unexpected EOF" && (command[0] == "watch" || command[0] == "subscribe") {
				continue // they take no body for an answer
			}
			fails(t, someDrivers(t), nil, test.want, append(command, flag)...)
		}
	}
}

func TestNotASidecar(t *testing.T) {
	flag := through(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "welcome to nginx") })
	fails(t, someDrivers(t), nil, "does not answer like a sidecar", "list", "services", flag)
	fails(t, someDrivers(t), nil, "does not answer like a sidecar", "get", "service", "x", flag)
	fails(t, someDrivers(t), nil, "the sidecar answered 200 OK", "watch", flag)
	fails(t, someDrivers(t), nil, "the sidecar answered 200 OK", "subscribe", "t", flag)
}

// What goes to the sidecar is what SPEC says, byte by byte where it counts.
func TestRequests(t *testing.T) {
	var got *http.Request
	var body string
	flag := through(t, func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got, body = r, string(data)
		if r.URL.Path == "/rpc" {
			fmt.Fprint(w, `{"a":1}`)
		}
	})
	works(t, someDrivers(t), nil, "publish", "a b/c?", "body", "--header=x-y=z", flag)
	if got.Method != http.MethodPost || got.URL.Path != "/broker" || got.URL.Query().Get("topic") != "a b/c?" || body != "body" {
		t.Errorf("publish sent %s %s %q", got.Method, got.URL, body)
	}
	if names := slices.Sorted(maps.Keys(got.Header)); !slices.Equal(names, []string{"Content-Length", "X-Y"}) {
		t.Errorf("publish sent the headers %v", names)
	}
	fails(t, someDrivers(t), nil, "header host belongs to the connection", "publish", "t", "b", "--header=host=x", flag)
	works(t, someDrivers(t), nil, "register", "service", `{"Name":"x","Nodes":[{"Id":"1","Address":"h:1"}]}`, "--ttl=10s", flag)
	if s, err := registry.DecodeService([]byte(body)); err != nil || got.Method != http.MethodPost ||
		got.URL.RequestURI() != "/registry?ttl=10s" || s.Nodes[0].Port != 1 {
		t.Errorf("register sent %s %s %q: %v", got.Method, got.URL, body, err)
	}
	works(t, someDrivers(t), nil, "deregister", "service", `{"Name":"x","Nodes":[{"Id":"1"}]}`, flag)
	if s, err := registry.DecodeNodes([]byte(body)); err != nil || got.Method != http.MethodDelete || s.Nodes[0].ID != "1" {
		t.Errorf("deregister sent %s %q: %v", got.Method, body, err)
	}
	out := works(t, someDrivers(t), nil, "call", "x", "Y.Z", `{"n":1e400}`, "--timeout=2s", flag)
	if !strings.Contains(body, `"request":{"n":1e400}`) || got.Header.Get("Timeout") != "2s" || out != "{\n  \"a\": 1\n}\n" {
		t.Errorf("call sent %q with %v and printed %q", body, got.Header, out)
	}
}

func TestSubscriptionThatEnds(t *testing.T) {
	end := make(chan func(*websocket.Conn) error, 1)
	flag := through(t, func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.CloseNow() }() // it may be closed
		if q := r.URL.Query(); q.Get("topic") != "t" || q.Get("queue") != "q" {
			t.Errorf("subscribed with %s", r.URL)
		}
		if err := conn.Write(r.Context(), websocket.MessageText, []byte(`{"Header":{"a":"b"},"Body":"aGVsbG8="}`)); err != nil {
			t.Error(err)
		}
		if err := (<-end)(conn); err != nil {
			t.Error(err)
		}
	})
	tests := []struct {
		end  func(*websocket.Conn) error
		want string
	}{
		{func(c *websocket.Conn) error { return c.Close(websocket.StatusPolicyViolation, "too slow") }, "ended the subscription: too slow"},
		{func(c *websocket.Conn) error { return c.Close(websocket.StatusGoingAway, "") }, "ended the subscription: StatusGoingAway"},
		{func(c *websocket.Conn) error { return c.CloseNow() }, "lost: "},
		{func(c *websocket.Conn) error {
			return c.Write(t.Context(), websocket.MessageText, []byte(`nonsense`))
		}, "a frame that is no message"},
	}
	for _, test := range tests {
		r := begin(t, someDrivers(t), nil, "subscribe", "t", "--queue=q", flag)
		r.out.wait(t, "hello\n")
		end <- test.end
		if status := r.ended(); status != exitFailure || !strings.Contains(r.err.String(), test.want) {
			t.Errorf("status %d, stderr %q, want %q", status, r.err.String(), test.want)
		}
	}
	// The user's own end is none of these.
	r := begin(t, someDrivers(t), nil, "subscribe", "t", "--queue=q", flag)
	r.out.wait(t, "hello\n")
	end <- func(c *websocket.Conn) error {
		_, _, err := c.Read(t.Context())
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			return fmt.Errorf("the subscriber left with %w", err)
		}
		return nil
	}
	if status := r.stop(); status != exitOK || r.err.String() != "micro: subscribed to t\n" {
		t.Errorf("status %d, stderr %q", status, r.err.String())
	}
}

func TestWatchThatEnds(t *testing.T) {
	flag := through(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		fmt.Fprint(w, ": hello\r\n\r\ndata: {\"Action\":\"create\",\r\ndata:\"Service\":{\"name\":\"x\"}}\r\n\r\n: beat\n\n")
	})
	r := begin(t, someDrivers(t), nil, "watch", flag)
	if status := r.ended(); status != exitFailure || r.out.String() != "create x -\n" || !strings.Contains(r.err.String(), "ended the watch: it is shutting down\n") {
		t.Errorf("status %d, stdout %q, stderr %q", status, r.out.String(), r.err.String())
	}
	nonsense := through(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 7\n\n")
	})
	r = begin(t, someDrivers(t), nil, "watch", nonsense)
	if status := r.ended(); status != exitFailure || !strings.Contains(r.err.String(), "a change that is none") {
		t.Errorf("status %d, stderr %q", status, r.err.String())
	}
}

// A stream of events yields each event's data, or ends; nothing else.
func FuzzReadEvents(f *testing.F) {
	f.Add("data: a\n\ndata: b\ndata: c\n\n")
	f.Add(": x\nid: 1\ndata:\n\n")
	f.Add("data: {}")
	f.Fuzz(func(t *testing.T, stream string) {
		err := readEvents(strings.NewReader(stream), func(data []byte) error {
			for line := range strings.SplitSeq(strings.TrimSuffix(string(data), "\n"), "\n") {
				if !strings.Contains(stream, line) || !strings.HasSuffix(string(data), "\n") {
					t.Errorf("an event of %q", data)
				}
			}
			return nil
		})
		if err == nil {
			t.Error("a stream that never ends")
		}
	})
}
