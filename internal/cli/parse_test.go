package cli

import (
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	good := map[string]int64{
		"1": 1, "65536": 65536, "4MiB": 4 << 20, "4 MiB": 4 << 20, "4mib": 4 << 20, "512KiB": 512 << 10,
		"4MB": 4_000_000, "10kB": 10_000, "7B": 7, "1GiB": 1 << 30, "1GB": 1_000_000_000,
	}
	for text, want := range good {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "+1", "1.5MiB", "MiB", "4 M", "1TiB", "2GiB", "0x10", "1_000", "99999999999999999999", "4MiB4"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}

// What is held on disk may be larger than what is held in memory.
func TestParseDiskSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "10GiB": 10 << 30, "2TiB": 2 << 40, "3TB": 3_000_000_000_000} {
		if got, err := parseDiskSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "1PiB", "9999999TiB", "10 G"} {
		if got, err := parseDiskSize(text); err == nil {
			t.Errorf("%q is taken as %d", text, got)
		}
	}
}

func TestParseSeconds(t *testing.T) {
	good := map[string]time.Duration{"1": time.Second, "90": 90 * time.Second, "1m30s": 90 * time.Second, "1500ms": 1500 * time.Millisecond}
	for text, want := range good {
		if got, err := parseSeconds(text); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-5", "1.5", "999ms", "soon", "99999999999", "10 s", "1e3"} {
		if got, err := parseSeconds(text); err == nil {
			t.Errorf("%q is taken as %s", text, got)
		}
	}
}

func TestParseAddress(t *testing.T) {
	good := map[string]string{
		"127.0.0.1:8081": "127.0.0.1:8081", "[::1]:8081": "[::1]:8081", "localhost:1": "localhost:1",
		"my_host.example.com:65535": "my_host.example.com:65535", "[fe80::1%eth0]:9": "[fe80::1%eth0]:9",
	}
	for text, want := range good {
		if got, err := parseAddress(text); err != nil || got.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", ":", ":80", "host", "host:", "host:0", "host:65536", "host:-1", "host:http", "::1:80", "[::1]",
		"a b:80", "a/b:80", "http://host:80", "host:80:80", "[host:80", strings.Repeat("a", 300) + ":80",
	} {
		if got, err := parseAddress(text); err == nil {
			t.Errorf("%q is taken as %q", text, got)
		}
	}
}

func TestParseProxy(t *testing.T) {
	good := map[string]string{
		"127.0.0.1:8081":           "http://127.0.0.1:8081/rpc?a=%2F",
		"http://127.0.0.1:8081":    "http://127.0.0.1:8081/rpc?a=%2F",
		"https://example.com":      "https://example.com/rpc?a=%2F",
		"https://example.com/side": "https://example.com/side/rpc?a=%2F",
		"http://[::1]:8081/":       "http://[::1]:8081/rpc?a=%2F",
	}
	for text, want := range good {
		p, err := parseProxy(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := p.endpoint("rpc", map[string][]string{"a": {"/"}}); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestSuggestion(t *testing.T) {
	names := []string{"registry", "registry_address", "register_ttl", "cors"}
	for typed, want := range map[string]string{
		"regstry": " (did you mean --registry?)", "Register-TTL": " (did you mean --register_ttl?)",
		"zzzzzzzz": "", "": "", strings.Repeat("registry", 50): "",
	} {
		if got := suggestion(typed, "--", names); got != want {
			t.Errorf("%.20q: %q, want %q", typed, got, want)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"1", "4MiB", "512kB", "-1", "99999999999999999999GiB", "1 B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseSize(text); err == nil && (n < 1 || n > maxSize) {
			t.Errorf("%q is taken as %d", text, n)
		} else if err != nil && err.Error() == "" {
			t.Errorf("%q: an error without words", text)
		}
	})
}

func FuzzParseDurations(f *testing.F) {
	for _, seed := range []string{"1", "5s", "1m30s", "-1s", "9999999h", "1e9s", "0.000000001s"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := parsePositive(text); err == nil && (d <= 0 || d > maxDuration) {
			t.Errorf("%q is taken as %s", text, d)
		}
		if d, err := parseSeconds(text); err == nil && (d < time.Second || d > maxDuration) {
			t.Errorf("%q seconds are taken as %s", text, d)
		}
	})
}

// What is taken as an address can be written and read again.
func FuzzParseAddresses(f *testing.F) {
	for _, seed := range []string{"127.0.0.1:80", "[::1]:80", "http://x:1/y", "[fe80::1%25e]:1", "a:b:c", "consul://a:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAddress(text); err == nil {
			if again, err := parseAddress(a.String()); err != nil || again != a {
				t.Errorf("%q became %q, and that %q, %v", text, a, again, err)
			}
		}
		if p, err := parseProxy(text); err == nil && p.url.Hostname() == "" {
			t.Errorf("%q is a sidecar without a host", text)
		}
		_, _ = parseEngineAddress(text)
		_, _ = parseOrigins(splitList(text))
		_, _ = parseHosts(splitList(text))
	})
}
