package microjson_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/microjson"
)

func TestDecode(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"s","nodes":[{"id":"n","address":"a:1"}]}`:                                "",
		`{"name":"s","nodes":[{"id":"n","address":"[::1]:1"},{"id":"","address":"b:2"}]}`:  "",
		`{"name":"s","nodes":[{"id":"n","address":"a","port":1}]}`:                         "",
		`{"name":"s","nodes":[{"id":"m","address":"a:0"},{"id":"n","address":"unix:/x"}]}`: "",
		`{"nodes":[{"id":"n","address":"a:1"}]}`:                                           "no name",
		`{"name":"s"}`:                                                                     "no node",
		`{"name":"s","nodes":[null]}`:                                                      "no node",
		`{"name":"s","nodes":[{"id":"n","address":"a:70000"}]}`:                            "from 1 to 65535",
		`{"name":"s","nodes":[{"id":"n","address":""}]}`:                                   "expected a host name",
		`{"name":"s","nodes":[{"id":"n","address":"a b:1"}]}`:                              "expected a host name",
		`null`: "no name", `[]`: "cannot unmarshal", `{`: "unexpected end", strings.Repeat(" ", 1<<20+1): "at most",
	} {
		s, err := microjson.Decode([]byte(text))
		if want == "" && (err != nil || len(s.Nodes) != 1 || s.Nodes[0].ID != "n") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.100s: %+v, %v, want %q", text, s, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"name":"svc","nodes":[{"id":"n","address":"x:1"}]}`, `{"name":"svc","nodes":[null,{"id":"n","address":"x","port":1}]}`,
		`{"name":"svc","version":"1","metadata":{"k":"v"},"endpoints":[{"name":"E","request":{"name":"r","type":"t","values":[null]}}],"nodes":[{"id":"n","address":"[::1]:1","metadata":{}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := microjson.Decode(data)
		if err != nil {
			return
		}
		again, err := microjson.Encode(s)
		if err != nil {
			return // grown over the limit
		}
		back, err := microjson.Decode(again)
		if err != nil || !reflect.DeepEqual(back.Nodes, s.Nodes) || back.Name != s.Name {
			t.Fatalf("decode again: %+v, %v, want %+v", back, err, s)
		}
	})
}
