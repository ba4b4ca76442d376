package route

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRPC(t *testing.T) {
	for _, tt := range []struct{ path, service, method string }{
		{"/foo/bar", "foo", "Foo.Bar"},
		{"/foo/bar/baz", "foo", "Bar.Baz"},
		{"/foo/bar/baz/cat", "foo.bar", "Baz.Cat"},
		{"/foo/bar/baz/cat/car", "foo.bar.baz", "Cat.Car"},
		{"/v1/foo/bar", "v1.foo", "Foo.Bar"},
		{"/v1/foo/bar/baz", "v1.foo", "Bar.Baz"},
		{"/v2/foo/bar/baz/cat", "v2.foo.bar", "Baz.Cat"},
		{"/foo/bar/baz-xyz", "foo", "Bar.BazXyz"},

		{"/v1/foo", "v1", "V1.Foo"},
		{"/v/foo/bar", "v", "Foo.Bar"},
		{"/v1x/foo/bar", "v1x", "Foo.Bar"},
		{"/greeter/say.hello", "greeter", "Greeter.Say.Hello"},
		{"/greeter/say/hello/", "greeter", "Say.Hello"},
		{"//greeter//./say/x/../hello", "greeter", "Say.Hello"},
		{"/../greeter/hello", "greeter", "Greeter.Hello"},
		{"/%2e%2e/greeter/%2E/hello", "greeter", "Greeter.Hello"},
		{"greeter/hello", "greeter", "Greeter.Hello"},
		{"/a%2Fb/say/hello", "a/b", "Say.Hello"},
		{"/a%2F..%2Fb/say/hello", "a/../b", "Say.Hello"},
		{"/foo/say_hello/a_b-c-", "foo", "Say_hello.A_bC"},
		{"/foo/it's/2fast", "foo", "It'S.2fast"},
		{"/foo/%C3%A9t%C3%A9/%ff%C3%9f", "foo", "Été.\xffß"},
	} {
		service, method, ok := RPC("go.micro.srv", tt.path)
		if !ok || service != "go.micro.srv."+tt.service || method != tt.method {
			t.Errorf("RPC(%q) = %q, %q, %v; want %q, %q", tt.path, service, method, ok, tt.service, tt.method)
		}
		if service, _, _ := RPC("", tt.path); service != tt.service {
			t.Errorf("RPC(%q) without a namespace = %q, want %q", tt.path, service, tt.service)
		}
	}
	for _, path := range []string{"", "/", "/foo", "/foo/", "/foo/..", "/foo/.", "/a/b/../..", "/foo/%zz", "/%2/bar"} {
		if service, method, ok := RPC("go.micro.srv", path); ok {
			t.Errorf("RPC(%q) = %q, %q; want none", path, service, method)
		}
	}
}

func TestProxy(t *testing.T) {
	for _, tt := range []struct{ path, service string }{
		{"/greeter", "greeter"},
		{"/greeter/", "greeter"},
		{"/greeter/x/../../y", "greeter"},
		{"//greeter//x", "greeter"},
		{"/v1/greeter/x", "v1.greeter"},
		{"/v1/greeter", "v1.greeter"},
		{"/v1/", "v1"},
		{"/v1", "v1"},
		{"/gree%74er%2Fx/y", "greeter/x"},
		{"/greeter/%zz", "greeter"},
	} {
		if service, ok := Proxy("ns", tt.path); !ok || service != "ns."+tt.service {
			t.Errorf("Proxy(%q) = %q, %v; want %q", tt.path, service, ok, tt.service)
		}
		if service, ok := Proxy("", tt.path); !ok || service != tt.service {
			t.Errorf("Proxy(%q) without a namespace = %q, %v; want %q", tt.path, service, ok, tt.service)
		}
	}
	for _, path := range []string{"", "/", "//", "/..", "/./x", "/%2e%2e/x", "/%zz/x", "/v1/../x", "/v1/%z"} {
		if service, ok := Proxy("ns", path); ok {
			t.Errorf("Proxy(%q) = %q; want none", path, service)
		}
	}
}

func TestRPCAllocates(t *testing.T) {
	allocs := testing.AllocsPerRun(100, func() { RPC("go.micro.srv", "/greeter/say/hello-world") })
	if allocs > 2 {
		t.Errorf("RPC allocates %v times, want the two results", allocs)
	}
	allocs = testing.AllocsPerRun(100, func() { Proxy("go.micro.srv", "/v1/greeter/say/hello") })
	if allocs > 1 {
		t.Errorf("Proxy allocates %v times, want the one result", allocs)
	}
}

func FuzzRPC(f *testing.F) {
	for _, s := range []string{"/foo/bar", "/v1/foo/bar", "/a%2Fb//c/./d", "/../..", "/é/%ff", "%", "/a/-", strings.Repeat("/x", 40)} {
		f.Add("ns", s)
	}
	f.Fuzz(func(t *testing.T, namespace, path string) {
		service, method, ok := RPC(namespace, path)
		if ok && (!strings.HasPrefix(service, namespace) || len(service) == 0) {
			t.Errorf("RPC(%q, %q): service %q, method %q", namespace, path, service, method)
		}
		if !ok && service+method != "" {
			t.Errorf("RPC(%q, %q) names something it refuses", namespace, path)
		}
	})
}

func FuzzProxy(f *testing.F) {
	for _, s := range []string{"/foo/bar", "/v1/foo/bar", "/a%2Fb//c/./d", "/../..", "/é/%ff", "%", "/v1/%2e"} {
		f.Add("ns", s)
	}
	f.Fuzz(func(t *testing.T, namespace, path string) {
		service, ok := Proxy(namespace, path)
		if ok && (!strings.HasPrefix(service, namespace) || len(service) <= len(namespace)) {
			t.Errorf("Proxy(%q, %q) = %q", namespace, path, service)
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		RPC("go.micro.srv", "/greeter/say/hello")
	}
}

func BenchmarkRouteProxy(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Proxy("go.micro.srv", "/greeter/say/hello?x")
	}
}
