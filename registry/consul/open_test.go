package consul

import (
	"log/slog"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

func TestOpenErrors(t *testing.T) {
	for address, want := range map[string]string{
		"ftp://h:1":                              "expected consul, http or https",
		"consul://":                              "got no host",
		"consul://:8500":                         "got no host",
		"consul://a:1,b:2":                       "",
		"consul://u:p@h:1":                       "expected no user or password",
		"consul://h:1/path":                      "expected no path",
		"consul://h:1?tokn=x":                    `unknown parameter "tokn" (did you mean token?)`,
		"consul://h:1?token=x&token=y":           "expected once, got it 2 times",
		"consul://h:1?scheme=ftp":                "expected http or https",
		"http://h:1?scheme=https":                `unknown parameter "scheme"`,
		"consul://h:1?%zz":                       "invalid URL escape",
		"http://h:1?ca_file=/x":                  "the scheme is http",
		"consul://h:1?scheme=http&insecure=true": "the scheme is http",
		"https://h:1?ca_file=/nosuch":            "ca_file",
		"consul://h:1?token=s&token_file=/x":     "expected one of them",
	} {
		u, err := url.Parse(address)
		if err != nil {
			continue // the flag's own error
		}
		_, err = Open(u, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error shows the password: %v", address, err)
		}
	}
}

func TestConfigure(t *testing.T) {
	t.Setenv("CONSUL_HTTP_ADDR", "env:1234")
	for address, want := range map[string][3]string{
		"consul://h":                        {"h:8500", "http", ""},
		"consul://[::1]":                    {"[::1]:8500", "http", ""},
		"consul://h:1?scheme=https&token=s": {"h:1", "https", "s"},
		"https://h":                         {"h", "https", ""},
		"consul://h?insecure=true":          {"h:8500", "https", ""},
		"http://h:1?token=s":                {"h:1", "http", "s"},
		"":                                  {"env:1234", "http", ""},
	} {
		var u *url.URL
		if address != "" {
			var err error
			if u, err = url.Parse(address); err != nil {
				t.Fatal(err)
			}
		}
		config, _, err := configure(u)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if have := [3]string{config.Address, config.Scheme, config.Token}; have != want {
			t.Errorf("%q: have %q, want %q", address, have, want)
		}
	}
}

func TestAnAgentThatIsAwayIsNamedInShort(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil { // nobody is there
		t.Fatal(err)
	}
	r, err := Open(&url.URL{Scheme: "consul", Host: address}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := registry.Service{Name: "foo", Nodes: []registry.Node{{ID: "foo-1", Address: "127.0.0.1", Port: 9090}}}
	err = r.Register(t.Context(), s, time.Minute)
	if err == nil || !strings.Contains(err.Error(), address) || strings.Contains(err.Error(), "filter=") {
		t.Errorf("error %v", err)
	}
}
