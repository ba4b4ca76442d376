package sidecar

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

const fooNode = `{"Name":"foo.bar","Nodes":[{"Port":9091,"Address":"127.0.0.1","Id":"foo.bar-017da09a"}]}`

func TestRegistryAsTyped(t *testing.T) {
	s := run(t, nil)
	s.expect(200, `[]`, "GET", "/registry", "", "")
	s.expect(200, "", "POST", "/registry", "application/json", fooNode)
	one := `{"name":"foo.bar","version":"","metadata":{},"endpoints":[],"nodes":[{"id":"foo.bar-017da09a","address":"127.0.0.1","port":9091,"metadata":{}}]}`
	s.expect(200, one, "GET", "/registry?service=foo.bar", "", "")
	s.expect(200, `[`+one+`]`, "GET", "/registry?service=foo.bar&versions=true", "", "")
	s.expect(200, `[{"name":"foo.bar"}]`, "GET", "/registry", "", "")
	s.expect(200, "", "POST", "/registry?ttl=1h", "application/json", fooNode) // renew
	s.expect(200, "", "DELETE", "/registry", "application/json", `{"Name":"foo.bar","Nodes":[{"Id":"foo.bar-017da09a"}]}`)
	s.refused(404, "foo.bar not found", "GET", "/registry?service=foo.bar", "", "")
	s.expect(200, "", "DELETE", "/registry", "application/json", fooNode) // it is gone already
	s.expect(200, `[]`, "GET", "/registry", "", "")
}

func TestRegistryTakesManySpellings(t *testing.T) {
	s := run(t, nil)
	s.expect(200, "", "POST", "/registry", "application/x-www-form-urlencoded",
		`{"nAmE":"many","VERSION":"2","nodes":[{"ID":"a","address":"127.0.0.1:9091"},{"id":"b","ADDRESS":"[::1]:9092"},{"Id":"c","Address":"::1","Port":9093}],"Metadata":{"k":"v"}}`)
	s.expect(200, `{"name":"many","version":"2","metadata":{"k":"v"},"endpoints":[],"nodes":[`+
		`{"id":"a","address":"127.0.0.1","port":9091,"metadata":{}},{"id":"b","address":"::1","port":9092,"metadata":{}},{"id":"c","address":"::1","port":9093,"metadata":{}}]}`,
		"GET", "/registry?service=many", "", "")
}

func TestRegistryForgetsAfterTTL(t *testing.T) {
	s := run(t, nil)
	s.expect(200, "", "POST", "/registry?ttl=50ms", "application/json", fooNode)
	eventually(t, "the registration expires", func() bool {
		status, _ := s.try("GET", "/registry?service=foo.bar", "", "")
		return status == 404
	})
}

func TestRegistryRefuses(t *testing.T) {
	s := run(t, func(c *Config) { c.MaxBodySize = 2048 })
	for _, c := range []struct {
		status int
		part   string
		method string
		query  string
		body   string
	}{
		{400, "", "POST", "", `{`},
		{400, "", "POST", "", `[]`},
		{400, "", "POST", "", ``},
		{400, "Name", "POST", "", `{"Nodes":[{"Id":"a","Address":"h","Port":1}]}`},
		{400, "Name", "POST", "", `{"Name":7,"Nodes":[{"Id":"a","Address":"h","Port":1}]}`},
		{400, "Nodes", "POST", "", `{"Name":"x"}`},
		{400, "Port", "POST", "", `{"Name":"x","Nodes":[{"Id":"a","Address":"h","Port":70000}]}`},
		{400, "Port", "POST", "", `{"Name":"x","Nodes":[{"Id":"a","Address":"h","Port":"9"}]}`},
		{400, "Port", "POST", "", `{"Name":"x","Nodes":[{"Id":"a","Address":"h"}]}`},
		{400, "Address", "POST", "", `{"Name":"x","Nodes":[{"Id":"a","Port":9}]}`},
		{400, "Id", "POST", "", `{"Name":"x","Nodes":[{"Address":"h","Port":9}]}`},
		{400, "Id", "POST", "", `{"Name":"x","Nodes":[{"Id":"a","Address":"h","Port":9},{"Id":"a","Address":"h","Port":10}]}`},
		{400, "ttl", "POST", "?ttl=banana", fooNode},
		{400, "ttl", "POST", "?ttl=10", fooNode},
		{400, "ttl", "POST", "?ttl=-1s", fooNode},
		{400, "ttl", "POST", "?ttl=", fooNode},
		{413, "2048", "POST", "", `{"Name":"` + strings.Repeat("x", 4096) + `"}`},
		{400, "Id", "DELETE", "", `{"Name":"x","Nodes":[{}]}`},
		{405, "PUT", "PUT", "", fooNode},
		{400, "versions", "GET", "?service=x&versions=maybe", ""},
	} {
		s.refused(c.status, c.part, c.method, "/registry"+c.query, "application/json", c.body)
	}
	if _, _, h := s.full("PATCH", "/registry", "", ""); h.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	s.expect(200, `[]`, "GET", "/registry", "", "")
}

// change is what the watch streams send.
type change struct {
	Action  string
	Service struct {
		Name  string
		Nodes []struct{ ID string }
	}
}

func (s *running) drive() {
	s.expect(200, "", "POST", "/registry", "application/json", fooNode)
	s.expect(200, "", "POST", "/registry", "application/json", strings.ReplaceAll(fooNode, "017da09a", "2"))
	s.expect(200, "", "DELETE", "/registry", "application/json", fooNode)
	s.expect(200, "", "DELETE", "/registry", "application/json", strings.ReplaceAll(fooNode, "017da09a", "2"))
}

var driven = []string{"create foo.bar 1", "update foo.bar 2", "update foo.bar 1", "delete foo.bar 1"}

func (c change) String() string {
	return c.Action + " " + c.Service.Name + " " + string(rune('0'+len(c.Service.Nodes)))
}

func TestRegistryWatchOverWebSocket(t *testing.T) {
	s := run(t, nil)
	for _, query := range []string{"", "?service=foo.bar"} {
		conn, resp, err := websocket.Dial(t.Context(), s.url+"/registry"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 101 {
			t.Fatalf("status %d", resp.StatusCode)
		}
		go s.drive()
		for _, want := range driven {
			kind, frame, err := conn.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var c change
			if err := json.Unmarshal(frame, &c); err != nil || kind != websocket.MessageText || c.String() != want {
				t.Errorf("got %s, want %s", frame, want)
			}
		}
		conn.Close(websocket.StatusNormalClosure, "")
	}
}

func TestRegistryWatchOverServerSentEvents(t *testing.T) {
	s := run(t, nil)
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/registry?service=foo.bar", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Errorf("content type %q", ct)
	}
	go s.drive()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range driven {
		for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
		}
		var c change
		if err := json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data: ")), &c); err != nil || c.String() != want {
			t.Errorf("got %q, want %s", lines.Text(), want)
		}
	}
}

func TestWatchersAreToldOfTheEnd(t *testing.T) {
	s := run(t, nil)
	conn, _, err := websocket.Dial(t.Context(), s.url+"/registry", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ended := make(chan error, 1)
	go func() { _, _, err := conn.Read(t.Context()); ended <- err }()
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if err := <-ended; websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("closed with %v, want 1001", err)
	}
}
