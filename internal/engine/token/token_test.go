package token_test

import (
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/micro/sidecar/internal/engine/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEncode(t *testing.T) {
	for text, want := range map[string]string{
		"":               "",
		"greeter":        "greeter",
		"go.micro.srv.a": "go=2Emicro=2Esrv=2Ea",
		"$JS.API.>":      "=24JS=2EAPI=2E=3E",
		"=2E":            "=3D2E",
		"=h":             "=3Dh",
		"ü":              "=C3=BC",
	} {
		if have := token.Encode(text); have != want {
			t.Errorf("Encode(%q) = %q, want %q", text, have, want)
		}
	}
	long := token.Encode(strings.Repeat(".", 100))
	if len(long) != 66 || !strings.HasPrefix(long, "=h") || long == token.Encode(strings.Repeat(".", 101)) {
		t.Errorf("Encode of a long text = %q", long)
	}
	if _, ok := token.Decode(long); ok {
		t.Error("Decode of a digest: no refusal")
	}
}

func TestRoundTrip(t *testing.T) {
	safe := regexp.MustCompile(`^[A-Za-z0-9_=-]{1,255}$`)
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOfN(rapid.Byte(), 1, 120).Draw(t, "text"))
		have := token.Encode(text)
		if !safe.MatchString(have) {
			t.Fatalf("Encode(%q) = %q", text, have)
		}
		if back, ok := token.Decode(have); ok && back != text || !ok && !strings.HasPrefix(have, "=h") {
			t.Fatalf("Decode(%q) = %q, %v, want %q", have, back, ok, text)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "a", "=", "=2", "=2E", "=2e", "=zz", "=h00", "a.b", "=41"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if text, ok := token.Decode(s); ok && token.Encode(text) != s {
			t.Errorf("Decode(%q) = %q, which is encoded as %q", s, text, token.Encode(text))
		}
	})
}
