package nats

import (
	"maps"
	"testing"

	gonats "github.com/nats-io/nats.go"
	"pgregory.net/rapid"
)

func TestHeaderRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "bytes")) })
		want := rapid.MapOfN(text, text, 1, 20).Draw(t, "header")
		have, err := decodeHeader(gonats.Header{headerField: {encodeHeader(want)}})
		if err != nil || !maps.Equal(have, want) {
			t.Fatalf("%q came back as %q, %v", want, have, err)
		}
	})
}

func FuzzHeader(f *testing.F) {
	for _, s := range []string{"", "=", "a", "a=b", "a=b&a=c", "%", "%41=%00", "a;b", "&&&", "a=b=c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := decodeHeader(gonats.Header{headerField: {s}})
		if err != nil {
			return
		}
		again, err := decodeHeader(gonats.Header{headerField: {encodeHeader(h)}})
		if err != nil || !maps.Equal(again, h) {
			t.Errorf("%q: %q, read again %q, %v", s, h, again, err)
		}
	})
}
