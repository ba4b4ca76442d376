//go:build unix

package e2e

import (
	"net"
	"strings"
	"testing"
	"time"
)

const tooLarge = 4<<20 + 1 // for the default limit

// testBadInput sends what no endpoint may take.
func testBadInput(t *testing.T, w world) {
	s := w.sidecar(t, "--namespace=bad")
	app := newGreeter(t)
	s.register("", "bad.greeter", "1", app.addr)
	node := func(fields string) string { return `{"Name":"bad.x","Nodes":[{"Id":"1",` + fields + `}]}` }
	const form = "application/x-www-form-urlencoded"

	for _, c := range []struct {
		method, path, contentType, body string
		status                          int
		detail                          string
	}{
		{"POST", "/registry", jsonType, ``, 400, "body"},
		{"POST", "/registry", jsonType, `{`, 400, "body"},
		{"POST", "/registry", jsonType, `nonsense`, 400, "body"},
		{"POST", "/registry", jsonType, `[]`, 400, "object"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x"} {}`, 400, "body"},
		{"POST", "/registry", jsonType, "{\"Name\":\"\xff\"}", 400, "UTF-8"},
		{"POST", "/registry", jsonType, strings.Repeat("[", 100_000), 400, "body"},
		{"POST", "/registry", jsonType, `{"Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, 400, "Name"},
		{"POST", "/registry", jsonType, `{"Name":"","Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, 400, "Name"},
		{"POST", "/registry", jsonType, `{"Name":7,"Nodes":[]}`, 400, "Name"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x"}`, 400, "Nodes"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":[]}`, 400, "Nodes"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":"none"}`, 400, "Nodes"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":[7]}`, 400, "Nodes[0]"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":[{"Address":"127.0.0.1:1"}]}`, 400, "Nodes[0].Id"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":[{"Id":"","Address":"127.0.0.1:1"}]}`, 400, "Nodes[0].Id"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Nodes":[{"Id":"1","Address":"127.0.0.1:1"},{"Id":"1","Address":"127.0.0.1:2"}]}`, 400, "Nodes[1].Id"},
		{"POST", "/registry", jsonType, node(`"Port":1`), 400, "Nodes[0].Address"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1"`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":0`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":-1`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":65536`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":1.5`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":1e99`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1","Port":"9091"`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1:70000"`), 400, "Nodes[0].Port"},
		{"POST", "/registry", jsonType, node(`"Address":7,"Port":1`), 400, "Nodes[0].Address"},
		{"POST", "/registry", jsonType, node(`"Address":"127.0.0.1:1","Metadata":{"k":1}`), 400, "Nodes[0].Metadata.k"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Metadata":[],"Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, 400, "Metadata"},
		{"POST", "/registry", jsonType, `{"Name":"bad.x","Endpoints":{},"Nodes":[{"Id":"1","Address":"127.0.0.1:1"}]}`, 400, "Endpoints"},
		{"POST", "/registry?ttl=", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry?ttl=10", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry?ttl=0s", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry?ttl=-1s", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry?ttl=ten", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry?ttl=9999999h", jsonType, node(`"Address":"127.0.0.1:1"`), 400, "ttl"},
		{"POST", "/registry", jsonType, strings.Repeat(" ", tooLarge), 413, "--max_body_size"},
		{"DELETE", "/registry", jsonType, `{`, 400, "body"},
		{"DELETE", "/registry", jsonType, `{"Nodes":[{"Id":"1"}]}`, 400, "Name"},
		{"DELETE", "/registry", jsonType, `{"Name":"bad.greeter","Nodes":[{}]}`, 400, "Nodes[0].Id"},
		{"DELETE", "/registry", jsonType, strings.Repeat(" ", tooLarge), 413, "--max_body_size"},
		{"GET", "/registry?service=bad.nosuch", "", ``, 404, "bad.nosuch"},
		{"PUT", "/registry", jsonType, ``, 405, "PUT"},

		{"POST", "/greeter/say/hello", jsonType, `{`, 400, "JSON"},
		{"POST", "/greeter/say/hello", jsonType, strings.Repeat(" ", tooLarge), 413, "--max_body_size"},
		{"POST", "/greeter/say/hello", "text/plain", `{}`, 415, "text/plain"},
		{"POST", "/nosuch/say/hello", jsonType, `{}`, 404, "bad.nosuch"},
		{"POST", "/greeter", jsonType, `{}`, 404, "/greeter"},
		{"POST", "/", jsonType, `{}`, 404, "/"},
		{"GET", "/greeter/say/hello", "", ``, 405, "GET"},
		{"POST", "/rpc", form, `method=Say.Hello`, 400, "service"},
		{"POST", "/rpc", form, `service=bad.greeter`, 400, "method"},
		{"POST", "/rpc", form, `service=bad.greeter&method=Say.Hello&request={`, 400, "request"},
		{"POST", "/rpc", form, `service=bad.greeter&method=Say.Hello&address=nowhere`, 400, "address"},
		{"POST", "/rpc", form, `service=%zz`, 400, "form"},
		{"POST", "/rpc", form, `service=bad.nosuch&method=Say.Hello`, 404, "bad.nosuch"},
		{"POST", "/rpc", jsonType, `{`, 400, "JSON"},
		{"POST", "/rpc", jsonType, `[]`, 400, "body"},
		{"POST", "/rpc", jsonType, `{"service":7,"method":"Say.Hello"}`, 400, "service"},
		{"POST", "/rpc", jsonType, `{"service":"bad.greeter","method":["Say.Hello"]}`, 400, "method"},
		{"POST", "/rpc", jsonType, `{"service":"bad.greeter","method":"Say.Hello","request":"{"}`, 400, "request"},
		{"POST", "/rpc", "text/plain", `x`, 415, "text/plain"},
		{"POST", "/rpc", jsonType, strings.Repeat(" ", tooLarge), 413, "--max_body_size"},
		{"GET", "/rpc", "", ``, 405, "GET"},

		{"POST", "/broker", "", `x`, 400, "topic"},
		{"POST", "/broker?topic=", "", `x`, 400, "topic"},
		{"POST", "/broker?topic=%ff", "", `x`, 400, "topic"},
		{"POST", "/broker?topic=a&topic=b", "", `x`, 400, "topic"},
		{"POST", "/broker?topic=%zz", "", `x`, 400, "query"},
		{"POST", "/broker?topic=bad", "", strings.Repeat("x", tooLarge), 413, "4194304"},
		{"GET", "/broker?topic=bad", "", ``, 426, "WebSocket"},
		{"GET", "/broker", "", ``, 400, "topic"},
		{"DELETE", "/broker?topic=bad", "", ``, 405, "DELETE"},

		{"POST", "/health", "", ``, 405, "POST"},
		{"POST", "/readyz", "", ``, 405, "POST"},
		{"GET", "/stats", "", ``, 404, "/stats"},
		{"GET", "/stats/x", "", ``, 405, "GET"},
	} {
		header := []string{contentType, c.contentType}
		if c.contentType == "" {
			header = nil
		}
		a := s.ask(c.method, c.path, c.body, header...)
		if before := t.Failed(); !before {
			a.refused(t, c.status, c.detail)
			if t.Failed() {
				t.Fatalf("… to %s %s %s %.200q", c.method, c.path, c.contentType, c.body)
			}
		}
		if c.status == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", c.method, c.path)
		}
	}
	s.ask("POST", "/greeter/say/hello", "{}", contentType, jsonType, "Timeout", "soon").refused(t, 400, "Timeout")
	s.ask("POST", "/greeter/say/hello", "{}", contentType, jsonType, "Micro-Handler", "magic").refused(t, 400, "Micro-Handler")
	s.ask("GET", "/registry", "", "Origin", "http://evil.example").refused(t, 403, "origin")

	if s.knows("bad.x") {
		t.Error("something that was refused was registered")
	}
	s.post("/greeter/say/hello", john).is(t, 200, helloJohn)
	s.get("/readyz").is(t, 200, "ok\n")
}

// nonsense is what a node may do instead of answering.
func nonsense() map[string]func(net.Conn) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	return map[string]func(net.Conn){
		"closes":           func(conn net.Conn) { _ = conn.Close() },
		"says-nothing":     says(""),
		"no-http":          says("SSH-2.0-OpenSSH_9.2\r\n"),
		"half-a-head":      says("HTTP/1.1 200 OK\r\nContent-"),
		"half-a-body":      says(head + "Content-Length: 100\r\n\r\n{\"id\":0,"),
		"bad-chunk":        says(head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
		"two-lengths":      says(head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
		"no-json":          says(head + "Content-Length: 8\r\n\r\nnonsense"),
		"array":            says(head + "Content-Length: 2\r\n\r\n[]"),
		"other-type":       says("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"),
		"endless-head":     says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 4<<20)),
		"too-large":        says(head + "Content-Length: 99999999999\r\n\r\n{"),
		"status-of-a-fool": says("HTTP/1.1 999999 Fine\r\n\r\n"),
	}
}

func testNonsenseNodes(t *testing.T, w world) {
	s := w.sidecar(t, "--namespace=odd")
	app := newGreeter(t)
	s.register("", "odd.greeter", "1", app.addr)
	for name, serve := range nonsense() {
		s.register("", "odd."+name, "1", rawNode(t, serve))
		a := s.post("/"+name+"/say/hello", john)
		a.refused(t, 502, "")
		if t.Failed() {
			t.Fatalf("%s: %d %.200s after %v", name, a.status, a.body, a.took)
		}
	}
	s.register("", "odd.hangs", "1", rawNode(t, hang))
	a := s.ask("POST", "/hangs/say/hello", john, contentType, jsonType, "Timeout", "300ms")
	a.refused(t, 504, "")
	if a.took < 250*time.Millisecond || a.took > 4*time.Second {
		t.Errorf("a timeout of 300ms took %v", a.took)
	}
	s.post("/greeter/say/hello", john).is(t, 200, helloJohn)
}

func testNonsenseNodesProxied(t *testing.T, w world) {
	s := w.sidecar(t, "--namespace=oddproxy", "--handler=proxy", "--client_request_timeout=3s")
	app := newGreeter(t)
	s.register("", "oddproxy.greeter", "1", app.addr)
	for _, name := range []string{"closes", "says-nothing", "no-http", "half-a-head", "two-lengths", "endless-head", "status-of-a-fool"} {
		s.register("", "oddproxy."+name, "1", rawNode(t, nonsense()[name]))
		if a := s.post("/"+name+"/x", john); a.status != 502 {
			t.Errorf("%s: %d %.200s after %v, want 502", name, a.status, a.body, a.took)
		}
	}
	// The head is on its way: all that is left is to cut the connection.
	for _, name := range []string{"half-a-body", "bad-chunk"} {
		s.register("", "oddproxy."+name, "1", rawNode(t, nonsense()[name]))
		if a := s.post("/"+name+"/x", john); a.status != 0 && a.status != 502 {
			t.Errorf("%s: %d %.200s, want a cut connection", name, a.status, a.body)
		}
	}
	s.register("", "oddproxy.hangs", "1", rawNode(t, hang))
	if a := s.get("/hangs/x"); a.status != 504 || a.took < 3*time.Second || a.took > 12*time.Second {
		t.Errorf("a hanging node: %d %s after %v", a.status, a.body, a.took)
	}
	s.get("/nosuch/x").refused(t, 404, "oddproxy.nosuch")
	s.get("/greeter/a%2Fb//c?d=%20").is(t, 200, "GET /greeter/a%2Fb//c?d=%20")
}

// hang reads and never answers.
func hang(conn net.Conn) {
	b := make([]byte, 4096)
	for {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}
