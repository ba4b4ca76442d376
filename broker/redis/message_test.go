package redis

import (
	"bytes"
	"maps"
	"testing"

	"github.com/micro/sidecar/broker"
)

// Whatever a channel or a stream holds is a message, and what we have written
// is read as it was.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("a=b&c=%20\nbody\nmore"))
	f.Add([]byte("\n"))
	f.Add([]byte("no line end"))
	f.Add([]byte("%zz\nbody"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := decode(bytes.Clone(text))
		if err != nil && (!bytes.Equal(m.Body, text) || len(m.Header) > 0) {
			t.Fatalf("%q: what is none of ours is not the body: %q", text, m.Body)
		}
		if m.Header == nil {
			t.Fatal("no header")
		}
		again, err := decode(encode(m))
		if err != nil || !bytes.Equal(again.Body, m.Body) || !maps.Equal(again.Header, m.Header) {
			t.Fatalf("%q: read as %v, then as %v, %v", text, m, again, err)
		}
	})
}

func TestEscape(t *testing.T) {
	for _, s := range []string{"", "a", "{a}", "%7B", "}{%25", "a.b/c"} {
		if got := unescape(escape(s)); got != s {
			t.Errorf("%q became %q", s, got)
		}
	}
	if keys("a}:q:b") == keys("a")+"q:b" {
		t.Error("two topics share a key")
	}
}

func BenchmarkEncode(b *testing.B) {
	m := broker.Message{Header: map[string]string{"Content-Type": "application/json", "Timestamp": "1499951537"}, Body: make([]byte, 200)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(encode(m)); err != nil {
			b.Fatal(err)
		}
	}
}
