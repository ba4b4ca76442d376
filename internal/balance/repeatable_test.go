package balance

import (
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestIdempotent(t *testing.T) {
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "OPTIONS": true, "TRACE": true, "PUT": true, "DELETE": true,
		"POST": false, "PATCH": false, "CONNECT": false, "get": false, "": false, "PURGE": false,
	} {
		if Idempotent(method) != want {
			t.Errorf("%q: %v", method, !want)
		}
	}
}

func TestDeclared(t *testing.T) {
	const key, flag = "Idempotency-Key", "Micro-Idempotent"
	for _, test := range []struct {
		want bool
		h    httpmsg.Header
	}{
		{false, nil},
		{false, httpmsg.Header{{Name: "X-Idempotency-Key", Value: "a"}}},
		{true, httpmsg.Header{{Name: key, Value: "8e03978e-40d5-43dd-bc93-6894a57f9324"}}},
		{true, httpmsg.Header{{Name: "idempotency-key", Value: ` "8e03978e" `}}},
		{true, httpmsg.Header{{Name: key, Value: `"a b, \"c\" \\"`}}},
		{false, httpmsg.Header{{Name: key, Value: ""}}},
		{false, httpmsg.Header{{Name: key, Value: `""`}}},
		{false, httpmsg.Header{{Name: key, Value: `"a`}}},
		{false, httpmsg.Header{{Name: key, Value: `"a", "b"`}}},
		{false, httpmsg.Header{{Name: key, Value: `"a\b"`}}},
		{false, httpmsg.Header{{Name: key, Value: `a, b`}}},
		{false, httpmsg.Header{{Name: key, Value: `a"`}}},
		{false, httpmsg.Header{{Name: key, Value: "ü"}}},
		{false, httpmsg.Header{{Name: key, Value: "a"}, {Name: key, Value: "b"}}},
		{true, httpmsg.Header{{Name: key, Value: strings.Repeat("a", maxKey)}}},
		{false, httpmsg.Header{{Name: key, Value: strings.Repeat("a", maxKey+1)}}},
		{true, httpmsg.Header{{Name: flag, Value: "true"}}},
		{true, httpmsg.Header{{Name: "micro-idempotent", Value: " True "}}},
		{false, httpmsg.Header{{Name: flag, Value: "false"}}},
		{false, httpmsg.Header{{Name: flag, Value: "1"}}},
		{false, httpmsg.Header{{Name: flag, Value: ""}}},
	} {
		if Declared(test.h) != test.want {
			t.Errorf("%v: %v", test.h, !test.want)
		}
	}
}

// A key that is taken is visible text of bounded length, whole and alone.
func FuzzIdempotencyKey(f *testing.F) {
	for _, seed := range []string{"", "a", `"a"`, `"\""`, `"a\`, `"`, "a,b", " a\t", "\x00", "ü", strings.Repeat("a", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		taken := Declared(httpmsg.Header{{Name: "Idempotency-Key", Value: value}})
		trimmed := strings.Trim(value, " \t")
		if taken && (len(strings.Trim(trimmed, `"`)) == 0 && trimmed != `"\""` && !strings.Contains(trimmed, `\`) || len(trimmed) > 2*maxKey+2) {
			t.Errorf("%q is taken", value)
		}
		for _, c := range []byte(trimmed) {
			if taken && (c < ' ' || c > '~') {
				t.Errorf("%q is taken", value)
			}
		}
		if taken && Declared(httpmsg.Header{{Name: "Idempotency-Key", Value: value}, {Name: "Idempotency-Key", Value: value}}) {
			t.Errorf("%q is taken twice", value)
		}
	})
}
