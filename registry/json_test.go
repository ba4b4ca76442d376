package registry_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDecodeService(t *testing.T) {
	body := `{"NAME":"foo.bar","version":"1.0","Metadata":{"a":"1","b":null},"unknown":{"Name":5},
		"Endpoints":[{"Name":"Say.Hello","request":{"name":"Request","type":"Request","values":[{"name":"n","type":"string","values":null}]},"metadata":{"stream":"true"}}],
		"Nodes":[{"Id":"foo-1","Address":"127.0.0.1","Port":9091,"Metadata":null},{"id":"foo-2","ADDRESS":"[::1]:9092","metadata":{"protocol":"mucp"}}]}`
	want := registry.Service{
		Name: "foo.bar", Version: "1.0", Metadata: map[string]string{"a": "1", "b": ""},
		Endpoints: []registry.Endpoint{{
			Name:     "Say.Hello",
			Request:  &registry.Value{Name: "Request", Type: "Request", Values: []*registry.Value{{Name: "n", Type: "string"}}},
			Metadata: map[string]string{"stream": "true"},
		}},
		Nodes: []registry.Node{
			{ID: "foo-1", Address: "127.0.0.1", Port: 9091, Metadata: map[string]string{}},
			{ID: "foo-2", Address: "::1", Port: 9092, Metadata: map[string]string{"protocol": "mucp"}},
		},
	}
	have, err := registry.DecodeService([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v\nwant %+v", have, want)
	}
}

func TestDecodeAddresses(t *testing.T) {
	for _, test := range []struct {
		node string // what stands beside Id
		host string
		port int
		err  string
	}{
		{`"Address":"127.0.0.1","Port":9091`, "127.0.0.1", 9091, ""},
		{`"Address":"127.0.0.1:9091"`, "127.0.0.1", 9091, ""},
		{`"Address":"127.0.0.1:9091","Port":9091`, "127.0.0.1", 9091, ""},
		{`"Address":"127.0.0.1:9091","Port":0`, "127.0.0.1", 9091, ""},
		{`"Address":"127.0.0.1:9091","Port":null`, "127.0.0.1", 9091, ""},
		{`"Address":"::1","Port":1`, "::1", 1, ""},
		{`"Address":"[::1]","Port":65535`, "::1", 65535, ""},
		{`"Address":"[::1]:9091"`, "::1", 9091, ""},
		{`"Address":"[fe80::1%eth0]:9091"`, "fe80::1%eth0", 9091, ""},
		{`"Address":"my_host-1.example.com.","Port":80`, "my_host-1.example.com.", 80, ""},
		{`"Address":"host:80"`, "host", 80, ""},

		{`"Address":"unix:/run/app.sock"`, "unix:/run/app.sock", 0, ""},
		{`"Address":"unix:/run/a:1 b.sock","Port":0`, "unix:/run/a:1 b.sock", 0, ""},
		{`"Address":"unix:/run/app.sock","Port":80`, "", 0, "Nodes[0].Port: expected none with a unix socket, got 80"},
		{`"Address":"unix:app.sock"`, "", 0, `Nodes[0].Address: expected unix:/PATH, the path of a socket of at most 107 bytes, got "unix:app.sock"`},
		{`"Address":"unix:"`, "", 0, `Nodes[0].Address: expected unix:/PATH, the path of a socket of at most 107 bytes, got "unix:"`},
		{`"Address":"unix:/"`, "", 0, `Nodes[0].Address: expected unix:/PATH, the path of a socket of at most 107 bytes, got "unix:/"`},
		{`"Address":"/run/app.sock"`, "", 0, `Nodes[0].Address: expected unix:/PATH, the path of a socket of at most 107 bytes, got "/run/app.sock"`},
		{`"Address":"unix:/a\nb"`, "", 0, `Nodes[0].Address: expected unix:/PATH, the path of a socket of at most 107 bytes, got "unix:/a\nb"`},
		{`"Address":"127.0.0.1:9091","Port":9092`, "", 0, "Nodes[0].Port: expected the port of Address, 9091, or none, got 9092"},
		{`"Address":"127.0.0.1"`, "", 0, "Nodes[0].Port: expected 1 to 65535, got none"},
		{`"Address":"127.0.0.1","Port":0`, "", 0, "Nodes[0].Port: expected 1 to 65535, got 0"},
		{`"Address":"127.0.0.1","Port":70000`, "", 0, "Nodes[0].Port: expected 1 to 65535, got 70000"},
		{`"Address":"127.0.0.1","Port":-1`, "", 0, "Nodes[0].Port: expected 1 to 65535, got -1"},
		{`"Address":"127.0.0.1","Port":80.5`, "", 0, "Nodes[0].Port: expected 1 to 65535, got 80.5"},
		{`"Address":"127.0.0.1","Port":"80"`, "", 0, "Nodes[0].Port: expected a number, got string"},
		{`"Address":"127.0.0.1:http"`, "", 0, "Nodes[0].Port: expected 1 to 65535, got http"},
		{`"Address":"127.0.0.1:99999"`, "", 0, "Nodes[0].Port: expected 1 to 65535, got 99999"},
		{`"Port":80`, "", 0, `Nodes[0].Address: expected a host name or an IP address, got ""`},
		{`"Address":7,"Port":80`, "", 0, "Nodes[0].Address: expected a string, got number"},
		{`"Address":":80"`, "", 0, `Nodes[0].Address: expected a host name or an IP address, with or without a port, got ":80"`},
		{`"Address":"host:","Port":80`, "", 0, `Nodes[0].Address: expected a host name or an IP address, with or without a port, got "host:"`},
		{`"Address":"http://host","Port":80`, "", 0, `Nodes[0].Address: expected a host name or an IP address, with or without a port, got "http://host"`},
		{`"Address":"a b","Port":80`, "", 0, `Nodes[0].Address: expected a host name or an IP address, with or without a port, got "a b"`},
		{`"Address":"[::1","Port":80`, "", 0, `Nodes[0].Address: expected [IPv6 address] or [IPv6 address]:port, got "[::1"`},
		{`"Address":"[host]:80"`, "", 0, `Nodes[0].Address: expected [IPv6 address] or [IPv6 address]:port, got "[host]:80"`},
		{`"Address":"[::1]80"`, "", 0, `Nodes[0].Address: expected [IPv6 address] or [IPv6 address]:port, got "[::1]80"`},
	} {
		s, err := registry.DecodeService([]byte(`{"Name":"foo","Nodes":[{"Id":"n",` + test.node + `}]}`))
		if test.err != "" {
			if err == nil || err.Error() != test.err {
				t.Errorf("%s:\n have error %v\n want error %v", test.node, err, test.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", test.node, err)
		} else if n := s.Nodes[0]; n.Address != test.host || n.Port != test.port {
			t.Errorf("%s: have %q and %d", test.node, n.Address, n.Port)
		}
	}
}

func TestDecodeServiceErrors(t *testing.T) {
	const node = `{"Id":"n","Address":"h:1"}`
	deep := strings.Repeat(`{"values":[`, 40) + strings.Repeat(`]}`, 40)
	for body, want := range map[string]string{
		``:                                "body: expected a JSON object, got nothing",
		" \n\t":                           "body: expected a JSON object, got nothing",
		`[]`:                              "body: expected an object, got array",
		`null`:                            "body: expected an object, got null",
		`{`:                               "body: expected one JSON object: byte 1: unexpected end of JSON input",
		`{} x`:                            "body: expected one JSON object: byte 4: invalid character 'x' after top-level value",
		`{}{}`:                            "body: expected one JSON object: byte 3: invalid character '{' after top-level value",
		`{}`:                              `Name: expected a service name, got ""`,
		"{\"Name\":\"\xff\"}":             "body: expected JSON in UTF-8, got other bytes",
		`{"Name":null}`:                   `Name: expected a service name, got ""`,
		`{"Name":7}`:                      "Name: expected a string, got number",
		`{"Name":"a","name":"b"}`:         "Name: expected once, got it twice",
		`{"Name":"a"}`:                    "Nodes: expected at least one node, got none",
		`{"Name":"a","Nodes":null}`:       "Nodes: expected at least one node, got none",
		`{"Name":"a","Nodes":[]}`:         "Nodes: expected at least one node, got none",
		`{"Name":"a","Nodes":{}}`:         "Nodes: expected an array, got object",
		`{"Name":"a","Nodes":["x"]}`:      "Nodes[0]: expected an object, got string",
		`{"Name":"a","Nodes":[null]}`:     "Nodes[0]: expected an object, got null",
		`{"Name":"a","Nodes":[{"Id":1}]}`: "Nodes[0].Id: expected a string, got number",
		`{"Name":"a","Nodes":[{"Address":"h:1"}]}`:                               `Nodes[0].Id: expected a node id, got ""`,
		`{"Name":"a","Nodes":[` + node + `,{"Id":"m","Address":true}]}`:          "Nodes[1].Address: expected a string, got boolean",
		`{"Name":"a","Nodes":[` + node + `,` + node + `]}`:                       `Nodes[1].Id: expected an id of its own, got "n" as in Nodes[0]`,
		`{"Name":"a","Version":1,"Nodes":[` + node + `]}`:                        "Version: expected a string, got number",
		`{"Name":"a","Metadata":[],"Nodes":[` + node + `]}`:                      "Metadata: expected an object of strings, got array",
		`{"Name":"a","Metadata":{"k":1},"Nodes":[` + node + `]}`:                 "Metadata.k: expected a string, got number",
		`{"Name":"a","Endpoints":{},"Nodes":[` + node + `]}`:                     "Endpoints: expected an array, got object",
		`{"Name":"a","Endpoints":[{"Request":"x"}],"Nodes":[` + node + `]}`:      "Endpoints[0].Request: expected an object, got string",
		`{"Name":"a","Nodes":[` + strings.Repeat(node+",", 10_000) + node + `]}`: "Nodes: expected at most 10000 nodes, got more",
		strings.Repeat(" ", 16<<20+1):                                            "body: expected at most 16777216 bytes, got 16777217",
	} {
		_, err := registry.DecodeService([]byte(body))
		if err == nil || err.Error() != want {
			t.Errorf("%.100s:\n have error %v\n want error %v", body, err, want)
		}
	}
	_, err := registry.DecodeService([]byte(`{"Name":"a","Endpoints":[{"Request":` + deep + `}],"Nodes":[` + node + `]}`))
	if err == nil || !strings.HasSuffix(err.Error(), ": expected values nested at most 32 deep") {
		t.Errorf("deep values: %.100v", err)
	}
	if _, err := registry.DecodeService([]byte(strings.Repeat("[", 1<<20))); err == nil {
		t.Error("a million open brackets were accepted")
	}
}

func TestDecodeNodes(t *testing.T) {
	have, err := registry.DecodeNodes([]byte(`{"name":"foo","Version":7,"Metadata":1,"Nodes":[
		{"Id":"a"},{"id":"b","Address":5,"Port":"x"},{"Id":"c","Address":"h:1","Port":99999},{"Id":"a"}]}`))
	want := registry.Service{Name: "foo", Nodes: []registry.Node{{ID: "a"}, {ID: "b"}, {ID: "c"}, {ID: "a"}}}
	if err != nil || !reflect.DeepEqual(have, want) {
		t.Errorf("have %+v, %v", have, err)
	}
	for _, body := range []string{``, `{}`, `{"Name":"foo"}`, `{"Nodes":[{"Id":"a"}]}`, `{"Name":"foo","Nodes":[{}]}`, `{"Name":"foo","Nodes":[{"Id":3}]}`} {
		if s, err := registry.DecodeNodes([]byte(body)); err == nil {
			t.Errorf("%s was accepted: %+v", body, s)
		}
	}
}

func TestLimitsAreReached(t *testing.T) {
	nodes := make([]string, 10_000)
	for i := range nodes {
		nodes[i] = fmt.Sprintf(`{"Id":"%d","Address":"h:1"}`, i)
	}
	s, err := registry.DecodeService([]byte(`{"Name":"foo","Nodes":[` + strings.Join(nodes, ",") + `]}`))
	if err != nil || len(s.Nodes) != 10_000 {
		t.Errorf("10,000 nodes: %d, %v", len(s.Nodes), err)
	}
}

func FuzzDecodeService(f *testing.F) {
	for _, seed := range []string{
		`{"Name":"foo.bar","Nodes":[{"Port":9091,"Address":"127.0.0.1","Id":"foo.bar-017da09a"}]}`,
		`{"name":"a","version":"1","metadata":{"k":"v"},"nodes":[{"id":"n","address":"[::1]:80","metadata":{"x":null}}]}`,
		`{"name":"a","endpoints":[{"name":"e","request":{"name":"r","type":"t","values":[{"name":"v"}]},"metadata":{}}],"nodes":[{"id":"n","address":"h:1"}]}`,
		`{"NAME":"\ud800","Nodes":[{"iD":"\u0000","Address":"fe80::1%z","Port":1}]}`,
		`{"Name":"a","Nodes":[{"Id":"n","Port":1e3}]}`, `[[[[`, `{"a":`, "\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := registry.DecodeNodes(data); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		first, err := registry.DecodeService(data)
		if err != nil {
			return
		}
		text, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := registry.DecodeService(text)
		if err != nil {
			t.Fatalf("%s came out as %s: %v", data, text, err)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("first %+v\nsecond %+v", first, second)
		}
		if strings.Contains(string(text), `"nodes":null`) {
			t.Fatalf("null in %s", text)
		}
		if n, err := registry.DecodeNodes(data); err != nil || n.Name != first.Name || len(n.Nodes) != len(first.Nodes) {
			t.Fatalf("DecodeNodes: %+v, %v", n, err)
		}
	})
}
