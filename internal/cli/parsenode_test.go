package cli

import (
	"strings"
	"testing"
)

func TestParseNode(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:9090": "127.0.0.1:9090", "[::1]:80": "[::1]:80", "unix:/run/app.sock": "unix:/run/app.sock",
		"unix:///run/app.sock": "unix:/run/app.sock", "unix:/a b": "unix:/a b",
	} {
		if a, err := parseNode(text); err != nil || a.String() != want {
			t.Errorf("%q: %q, %v", text, a, err)
		}
	}
	for _, text := range []string{"", "unix", "unix:", "unix:app.sock", "unix:/", "unix:/a/", "unix:/a\nb", "unix:/" + strings.Repeat("x", 107), ":80", "127.0.0.1:0"} {
		if a, err := parseNode(text); err == nil {
			t.Errorf("%q became %q", text, a)
		}
	}
}
