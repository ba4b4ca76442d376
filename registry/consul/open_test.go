package consul

import (
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

func TestOpenErrors(t *testing.T) {
	for address, want := range map[string]string{
		"ftp://h:1":                    "expected consul, http or https",
		"consul://":                    "got no host",
		"consul://:8500":               "got no host",
		"consul://a:1,b:2":             "",
		"consul://u:p@h:1":             "expected no user or password",
		"consul://h:1/path":            "expected no path",
		"consul://h:1?tokn=x":          "unknown parameter tokn",
		"consul://h:1?token=x&token=y": "expected once, got it 2 times",
		"consul://h:1?scheme=ftp":      "expected http or https",
		"http://h:1?scheme=https":      "expected http or https, in a consul:// address",
		"consul://h:1?%zz":             "invalid URL escape",
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
		config, err := configure(u)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		if have := [3]string{config.Address, config.Scheme, config.Token}; have != want {
			t.Errorf("%q: have %q, want %q", address, have, want)
		}
	}
}
