package suggest_test

import (
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/suggest"
)

func TestNearest(t *testing.T) {
	names := []string{"token", "datacenter", "ca_file", "cert_file"}
	for typed, want := range map[string]string{
		"tokn":                     "token",
		"TOKEN":                    "token",
		"ca-file":                  "ca_file",
		"data_center":              "datacenter",
		"nothing":                  "",
		"":                         "",
		strings.Repeat("x", 1<<20): "",
	} {
		if have := suggest.Nearest(typed, names); have != want {
			t.Errorf("Nearest(%.20q) = %q, want %q", typed, have, want)
		}
	}
}
