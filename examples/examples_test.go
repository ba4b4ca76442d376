// Package examples holds programs for users to read; its test runs every one
// of them against a real sidecar.
package examples

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/examples/internal/process"
)

const (
	rpcName = "go.micro.srv.greeter"
	webName = "go.micro.srv.greeterweb"
	ttl     = 3 * time.Second
	patient = 60 * time.Second // for what takes as long as it takes
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// language is one way to run the three programs of the greeter.
type language struct {
	name             string
	rpc, web, client []string
}

func TestGreeters(t *testing.T) {
	dir := t.TempDir()
	const src = "examples/greeter/go/"
	if err := process.Build(t.Context(), dir, "cmd/micro", src+"rpcserver", src+"webserver", src+"client"); err != nil {
		t.Fatal(err)
	}
	s := newSidecar(t, filepath.Join(dir, "micro"))
	for _, l := range []language{
		{"Go", []string{filepath.Join(dir, "rpcserver")}, []string{filepath.Join(dir, "webserver")}, []string{filepath.Join(dir, "client")}},
		{"Python", script("python3", "python/rpc_server.py"), script("python3", "python/web_server.py"), script("python3", "python/client.py")},
		{"Node", script("node", "node/rpc_server.mjs"), script("node", "node/web_server.mjs"), script("node", "node/client.mjs")},
	} {
		t.Run(l.name, func(t *testing.T) { s.greeter(t, l) })
	}
}

func script(interpreter, file string) []string {
	return []string{interpreter, filepath.Join("greeter", filepath.FromSlash(file))}
}

// greeter takes the greeter of one language through its life.
func (s *sidecar) greeter(t *testing.T, l language) {
	rpc, web := s.start(t, l.rpc), s.start(t, l.web)
	rpcAt, webAt := s.registered(t, rpcName), s.registered(t, webName)

	john := `{"name":"John"}`
	s.expect(t, post("/greeter/say/hello", john), 200, `"msg"`, "Hello John")
	s.expect(t, post("/rpc", `{"service":"`+rpcName+`","method":"Say.Hello","request":`+john+`}`), 200, `"msg"`, "Hello John")
	s.expect(t, post("/rpc", `{"service":"`+rpcName+`","method":"Debug.Health","request":{}}`), 200, "ok")
	s.expect(t, post("/greeter/say/nothing", john), 404, rpcName, "Say.Nothing not found")
	s.expect(t, post("/greeter/say/hello", `{"name":7}`), 400, rpcName, "expected a name")

	s.expect(t, proxied("/greeterweb/hello?name=J%C3%B6rg"), 200, `"msg"`, "Hello J")
	s.expect(t, proxied("/greeterweb/hello"), 400, webName, "expected a name")
	s.expect(t, proxied("/greeterweb/nothing"), 404, webName, "nothing at /greeterweb/nothing")

	connectionStays(t, rpcAt, http.MethodPost, `{"method":"Say.Hello","params":[{"name":"John"}],"id":0}`)
	connectionStays(t, webAt, http.MethodGet, "")
	for _, nonsense := range []string{"", "nonsense", "null", "[]", `{"id":[]}`, `{"method":"Say.Hello","params":[],"id":0}`} {
		refusesNonsense(t, rpcAt, nonsense)
	}
	s.runClient(t, l.client)

	if err := rpc.Stop(patient); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, rpc.Output())
	}
	s.gone(t, rpcName, ttl/3) // no renewal was missed yet: it has deregistered
	web.Kill()
	s.gone(t, webName, ttl+time.Second)
}

// TestSidecarKilled kills a sidecar under its services: when it is back, so are
// they, without a restart, and those that died meanwhile are not.
func TestSidecarKilled(t *testing.T) {
	dir := t.TempDir()
	const src = "examples/greeter/go/"
	if err := process.Build(t.Context(), dir, "cmd/micro", src+"rpcserver", src+"webserver"); err != nil {
		t.Fatal(err)
	}
	s := newSidecar(t, filepath.Join(dir, "micro"))
	rpc, web := s.start(t, []string{filepath.Join(dir, "rpcserver")}), s.start(t, []string{filepath.Join(dir, "webserver")})
	at := s.registered(t, rpcName)
	s.registered(t, webName)

	s.process.Kill()
	web.Kill()
	s.up(t)
	s.gone(t, webName, ttl+time.Second)
	if again := s.registered(t, rpcName); again != at {
		t.Errorf("registered at %s before, at %s after", at, again)
	}
	s.expect(t, post("/greeter/say/hello", `{"name":"John"}`), 200, "Hello John")
	if err := rpc.Stop(patient); err != nil {
		t.Errorf("after SIGTERM: %v\n%s", err, rpc.Output())
	}
	s.gone(t, rpcName, ttl/3)
}

// connectionStays sends two requests to a node: the second on the connection
// of the first.
func connectionStays(t *testing.T, node, method, body string) {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	reused := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused },
	})
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+node+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if closed := resp.Body.Close(); err != nil || closed != nil {
			t.Fatal(err, closed)
		}
	}
	if !reused {
		t.Errorf("%s closes its connections after one request", node)
	}
}

// refusesNonsense sends a body that is no call: the answer is a go-micro
// error, and the server lives on.
func refusesNonsense(t *testing.T, node, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+node+"/", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	_, got := send(t, req)
	var answer struct{ Error string }
	var failure struct {
		ID   string
		Code int
	}
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		t.Errorf("%s answered to %q: %q", node, body, got)
		return
	}
	if err := json.Unmarshal([]byte(answer.Error), &failure); err != nil || failure.ID != rpcName || failure.Code != 400 {
		t.Errorf("%s answered to %q: %s", node, body, fmt.Sprint(answer.Error, " ", err))
	}
}
