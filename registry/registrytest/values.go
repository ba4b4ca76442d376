package registrytest

import (
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// odd is text that some engine takes for its own syntax or cannot hold.
var odd = []string{
	"with space", " lead", "trail ", "a.b.c", ".", "..", "a..b", ".lead", "trail.",
	"a/b/c", "/lead", "trail/", "../up", "a//b", `back\slash`,
	"*", ">", "a.*", "a.>", "$SYS", "$KV.x", "_INBOX.x", "service:x", "_nomad-x",
	"?q=1", "a?b=c&d", "#frag", "%2F", "%", "%zz", "a%20b", "+plus", "a=b", "a,b;c", "a:b", "[::1]:80",
	`"quoted"`, "'single'", "<tag>", "{curly}", "back`tick", "a|b", "a~b", "a^b", "@at", "!",
	"ünïcödé", "日本語", "🙂", "e\u0301", "\u00e9", "tab\there", "line\nbreak", "nul\x00byte",
	"UPPER", "micro--encoded", "x-6162", "=3D", "_", "-", "--", "a_b", "0",
	"topic:events", "go.micro.srv.greeter",
}

func testNamesAndIDs(t *testing.T, s *suite) {
	texts := append([]string{strings.Repeat("long-", 40), strings.Repeat("é", 200), strings.Repeat("/", 200)}, odd...)
	for i, text := range texts {
		byName := s.service(s.prefix+text, "1", "n")
		if i%2 == 0 { // at the start of a name too, where engines look for syntax
			byName.Name = text + s.prefix
		}
		byName.Nodes[0].Port = 1000 + i
		s.register(t, byName, time.Duration(i%2)*time.Minute)
	}
	many := s.service(s.name("ids"), "1", texts...)
	s.register(t, many, 0)
	registry.Sort([]registry.Service{many})
	s.expect(t, many.Name, many)

	for i, text := range texts {
		want := s.service(s.prefix+text, "1", "n")
		if i%2 == 0 {
			want.Name = text + s.prefix
		}
		want.Nodes[0].Port = 1000 + i
		if have := s.get(t, want.Name); !same(have, []registry.Service{want}) {
			t.Errorf("service %q: have %s, want %s", want.Name, show(have), show([]registry.Service{want}))
		}
		if !s.listed(t, want.Name) {
			t.Errorf("List does not hold %q", want.Name)
		}
		s.deregister(t, want.Name, "n")
		s.expectGone(t, want.Name)
		s.deregister(t, many.Name, text)
	}
	s.expectGone(t, many.Name)

	for _, text := range []string{"*", ">", ".", "..", "/", "?", "#", "%", " "} { // nothing but syntax
		service := s.service(text, "1", text+s.prefix)
		s.register(t, service, 0)
		s.expect(t, text, service)
		s.deregister(t, text, text+s.prefix)
	}
}

func testAddresses(t *testing.T, s *suite) {
	for i, address := range []string{"127.0.0.1", "::1", "fe80::1%eth0", "2001:db8::ff00:42:8329", "host.example.com", "my_container", "localhost"} {
		want := s.service(s.name("at"), "1", "n")
		want.Nodes[0].Address = address
		want.Nodes[0].Port = []int{1, 80, 65535}[i%3]
		s.register(t, want, 0)
		s.expect(t, want.Name, want)
	}
	socket := s.service(s.name("at"), "1", "n")
	socket.Nodes[0].Address, socket.Nodes[0].Port = "unix:/run/a b/é,;%2F.sock", 0
	for range 2 { // again renews
		s.register(t, socket, time.Minute)
		s.expect(t, socket.Name, socket)
	}
	socket.Nodes[0].Address, socket.Nodes[0].Port = "127.0.0.1", 9091 // it has moved
	s.register(t, socket, time.Minute)
	s.expect(t, socket.Name, socket)
}

func testMetadata(t *testing.T, s *suite) {
	metadata := map[string]string{
		"plain": "value", "a.b": "dots", "a:b": "colons", "empty": "", "Case": "1", "case": "2",
		"with space": " spaces ", "ünïcödé": "日本語", "json": `{"k":["v"]}`, "quote": `"`, "newline": "a\nb",
		"kilobyte": strings.Repeat("0123456789abcdef", 64), "zeros": strings.Repeat("0", 1024),
		strings.Repeat("k", 200): "a long key", "": "an empty key", "=": "=", "t": "t", "e-": "v-",
		"consul-x": "1", "html": "<&>", "a/b": "/", "*": ">", "nul": "\x00",
	}
	for i, o := range odd {
		metadata["odd "+o] = odd[len(odd)-1-i]
	}
	want := s.service(s.name("greeter"), "1 beta/2", "n", "o")
	want.Metadata = metadata
	want.Nodes[0].Metadata = metadata
	s.register(t, want, time.Minute)
	s.expect(t, want.Name, want)

	want.Metadata, want.Nodes[0].Metadata = nil, nil
	s.register(t, want, time.Minute)
	s.expect(t, want.Name, want)
}

func testEndpoints(t *testing.T, s *suite) {
	want := s.service(s.name("greeter"), "1", "n", "o")
	deep := &registry.Value{Name: "leaf", Type: "string"}
	for range 10 {
		deep = &registry.Value{Name: "level", Type: "Level", Values: []*registry.Value{deep, {Name: "other", Type: "int64"}}}
	}
	want.Endpoints = []registry.Endpoint{
		{Name: "Say.Hello", Request: deep, Response: deep, Metadata: map[string]string{"stream": "true", "a.b": ""}},
		{Name: "Say.Bye", Request: &registry.Value{Name: "Request", Type: "Request"}},
		{Name: "Debug.Health"},
		{Name: "odd / ü %2F", Metadata: map[string]string{"k": strings.Repeat("v", 1024)}},
	}
	s.register(t, want, time.Minute)
	s.expect(t, want.Name, want)
}
