//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// curl runs a line as a user types it, but for the port, and returns the
// answer; -i -s makes curl show the head and no progress.
func (s *sidecar) curl(line string) answer {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	line = strings.NewReplacer("curl ", "curl -i -s ", ":8081", ":"+port).Replace(line)
	out := command(s.t, "", "sh", "-c", line)
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(out)), nil)
	if err != nil {
		s.t.Fatalf("%s: %v: %q", line, err, out)
	}
	defer resp.Body.Close()
	_, body, _ := strings.Cut(out, "\r\n\r\n")
	return answer{status: resp.StatusCode, body: body, header: resp.Header}
}

func testCurl(t *testing.T, w world) {
	lookPath(t, "curl")
	s := w.sidecar(t)
	app := newGreeter(t)
	host, port, _ := net.SplitHostPort(app.addr)

	const fooBar = "http://127.0.0.1:8081/registry?service=foo.bar"
	const node = `{"Port":9091,"Address":"127.0.0.1","Id":"foo.bar-017da09a-734f-11e5-8136-68a86d0d36b6"}`
	const want = `{"name":"foo.bar","version":"","metadata":{},"endpoints":[],"nodes":[
		{"id":"foo.bar-017da09a-734f-11e5-8136-68a86d0d36b6","address":"127.0.0.1","port":9091,"metadata":{}}]}`
	empty := func(line string) {
		t.Helper()
		a := s.curl(line)
		a.is(t, 200, "")
		if a.header.Get("Content-Length") != "0" {
			t.Errorf("%s: no Content-Length: 0 in %v", line, a.header)
		}
	}
	isJSON := func(line string, status int, body string) {
		t.Helper()
		a := s.curl(line)
		a.is(t, status, body)
		if a.header.Get(contentType) != jsonType {
			t.Errorf("%s: content type %q", line, a.header.Get(contentType))
		}
	}

	empty(`curl -H 'Content-Type: application/json' http://127.0.0.1:8081/registry -d '{"Name":"foo.bar","Nodes":[` + node + `]}'`)
	isJSON(`curl '`+fooBar+`'`, 200, want)
	empty(`curl -X DELETE -H 'Content-Type: application/json' http://127.0.0.1:8081/registry -d '{"Name":"foo.bar","Nodes":[` + node + `]}'`)
	isJSON(`curl '`+fooBar+`'`, 404, `{"id":"go.micro.sidecar","code":404,"detail":"service foo.bar not found","status":"Not Found"}`)
	empty(`curl -X DELETE -H 'Content-Type: application/json' http://127.0.0.1:8081/registry -d '{"Name":"foo.bar","Nodes":[` + node + `]}'`)
	empty(`curl -H 'Content-Type: application/json' 'http://127.0.0.1:8081/registry?ttl=10s' -d '{"Name":"foo.bar","Nodes":[` + node + `]}'`)
	isJSON(`curl '`+fooBar+`'`, 200, want)
	isJSON(`curl '`+fooBar+`&versions=true'`, 200, "["+want+"]")

	const example = "go.micro.srv.example"
	isJSON(`curl 'http://127.0.0.1:8081/registry?service=`+example+`'`, 404,
		`{"id":"go.micro.sidecar","code":404,"detail":"service go.micro.srv.example not found","status":"Not Found"}`)
	isJSON(`curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://127.0.0.1:8081/example/call`, 404,
		`{"id":"go.micro.sidecar","code":404,"detail":"service go.micro.srv.example not found","status":"Not Found"}`)
	s.register("", example, "example-1", app.addr)
	isJSON(`curl 'http://127.0.0.1:8081/registry?service=`+example+`'`, 200,
		`{"name":"`+example+`","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"example-1","address":"`+host+`","port":`+port+`,"metadata":{}}]}`)
	isJSON(`curl -H 'Content-Type: application/json' -d '{"name": "John"}' http://127.0.0.1:8081/example/call`, 200, helloJohn)
	isJSON(`curl -d 'service=go.micro.srv.example' -d 'method=Example.Call' -d 'request={"name": "John"}' http://127.0.0.1:8081/rpc`, 200, helloJohn)

	names := s.curl(`curl http://127.0.0.1:8081/registry`)
	var list []map[string]string
	if err := json.Unmarshal([]byte(names.body), &list); err != nil {
		t.Fatalf("%v: %s", err, names.body)
	}
	var found []string
	for i, service := range list {
		if len(service) != 1 || i > 0 && service["name"] < list[i-1]["name"] {
			t.Errorf("not a sorted list of names: %s", names.body)
		}
		if name := service["name"]; name == "foo.bar" || name == example {
			found = append(found, name)
		}
	}
	if len(found) != 2 {
		t.Errorf("the list lacks what was registered: %s", names.body)
	}

	sub := s.subscribe("foo", "")
	empty(`curl -XPOST -H "Timestamp: 1499951537" -d "Hello World!" "http://localhost:8081/broker?topic=foo"`)
	if m := sub.message(); string(m.Body) != "Hello World!" || m.Header["Timestamp"] != "1499951537" {
		t.Errorf("message %v", m)
	}
}

func testCommandsAsTyped(t *testing.T, w world) {
	app := newGreeter(t)
	s := w.sidecar(t, "--server_name=typed.foo", "--server_address="+app.addr, "--healthcheck_url=http://"+app.addr+"/health")
	within(t, patient, "the application to be registered", func() bool { return s.knows("typed.foo") })
	for _, through := range [][]string{{"--proxy_address=" + s.addr}, {"--proxy_address=http://" + s.addr}, nil} {
		if out := w.succeed(t, append(through, "list", "services")...); !strings.Contains("\n"+out, "\ntyped.foo\n") {
			t.Errorf("%q list services: %q", through, out)
		}
		if out := w.succeed(t, append(through, "get", "service", "typed.foo")...); !strings.Contains(out, "typed.foo-") {
			t.Errorf("%q get service: %q", through, out)
		}
		if out := w.succeed(t, append(through, "call", "typed.foo", "Say.Hello", john)...); !sameJSON(out, helloJohn) {
			t.Errorf("%q call: %q", through, out)
		}
		w.fails(t, 1, "service nosuch not found", append(through, "get", "service", "nosuch")...)
	}

	stats := w.launch(t, "--enable_stats")
	stats.awaitReady()
	stats.get("/nowhere") // a 404, counted as such
	a := stats.ask("GET", "/stats", "", "Accept", jsonType)
	var report struct {
		Started, Threads int64
		Counters         []struct {
			StatusCodes map[string]int `json:"status_codes"`
			TotalReqs   int            `json:"total_reqs"`
		}
	}
	if err := json.Unmarshal([]byte(a.body), &report); err != nil || a.status != 200 {
		t.Fatalf("/stats: %d %s (%v)", a.status, a.body, err)
	}
	ok, refused := 0, 0
	for _, c := range report.Counters {
		ok, refused = ok+c.StatusCodes["20x"], refused+c.StatusCodes["40x"]
	}
	if now := time.Now().Unix(); report.Started < now-60 || report.Started > now || ok < 1 || refused < 1 {
		t.Errorf("/stats: %s", a.body)
	}
	s.get("/stats").refused(t, 404, "/stats")
}

// testRecorded2017 sees the bytes that a node without metadata gets.
func testRecorded2017(t *testing.T, w world) {
	type capture struct {
		head []string
		body string
	}
	got := make(chan capture, 1)
	node := rawNode(t, func(conn net.Conn) {
		r := bufio.NewReader(conn)
		var c capture
		length := 0
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSuffix(line, "\r\n")
			if line == "" {
				break
			}
			c.head = append(c.head, line)
			if n, ok := strings.CutPrefix(line, "Content-Length: "); ok {
				_ = json.Unmarshal([]byte(n), &length) // 0 shows in the body
			}
		}
		body := make([]byte, length)
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		c.body = string(body)
		got <- c
		const result = `{"id":0,"error":null,"result":{"msg":"Hello John"}}`
		_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Secret: of the node\r\nContent-Length: 51\r\n\r\n" + result))
	})
	s := w.sidecar(t, "--namespace=recorded")
	s.register("", "recorded.greeter", "greeter-1", node)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("POST /greeter/say/hello HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" + john)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get(contentType) != jsonType || resp.Header.Get("X-Secret") != "" {
		t.Errorf("answered %d %v", resp.StatusCode, resp.Header)
	}

	c := <-got
	want := map[string]string{
		"Host": node, "Content-Length": strconv.Itoa(len(c.body)),
		"Accept": jsonType, contentType: jsonType,
		"X-Micro-From-Service": "go.micro.sidecar",
	}
	if c.head[0] != "POST / HTTP/1.1" || c.body != `{"method":"Say.Hello","params":[{"name":"John"}],"id":0}` && c.body != `{"method":"Say.Hello","params":[{"name": "John"}],"id":0}` {
		t.Errorf("the node got %q with %q", c.head[0], c.body)
	}
	timeouts := 0
	for _, line := range c.head[1:] {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Timeout" { // what is left of 5 s, where 2017 said 5000000000 always
			if ns, err := strconv.ParseInt(value, 10, 64); err != nil || ns <= 4e9 || ns > 5e9 {
				t.Errorf("Timeout: %s", value)
			}
			timeouts++
			continue
		}
		if wanted, ok := want[name]; !ok || value != wanted {
			t.Errorf("the node got %q, want %q", line, wanted)
		}
		delete(want, name)
	}
	if len(want) > 0 || timeouts != 1 {
		t.Errorf("the node did not get %v: %q", want, c.head)
	}

	a := s.get("/greeter/say/hello")
	a.refused(t, 405, "GET")
	if a.header.Get("Allow") != "POST" {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	s.post("/nosuch/say/hello", john).is(t, 404, `{"id":"go.micro.sidecar","code":404,"detail":"service recorded.nosuch not found","status":"Not Found"}`)
}
