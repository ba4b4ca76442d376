package etcd

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/micro/sidecar/registry"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"name":"svc","nodes":[{"id":"n","address":"x:1"}]}`, `{"name":"svc","nodes":[null,{"id":"n","address":"x","port":1}]}`,
		`{"name":"svc","version":"1","metadata":{"k":"v"},"endpoints":[{"name":"E","request":{"name":"r","type":"t","values":[null]}}],"nodes":[{"id":"n","address":"[::1]:1","metadata":{}}]}`,
		`{"name":"svc","nodes":[{"id":"n","address":"unix:/x"}]}`, `{"name":"a/b","nodes":[{"id":"n","address":"a:1"}]}`,
	} {
		f.Add("svc/n", []byte(s))
	}
	f.Add("a-b/micro--612f62-6e", []byte(`{"name":"a/b","nodes":[{"id":"n","address":"a:1"}]}`))
	f.Fuzz(func(t *testing.T, at string, value []byte) {
		e, err := decode(at, value)
		if err != nil {
			return
		}
		n := e.service.Nodes[0]
		if e.service.Name == "" || n.ID == "" || n.Address == "" || len(e.service.Nodes) != 1 {
			t.Fatalf("decode(%q, %q) = %+v", at, value, e.service)
		}
		again, err := encode(e.service, n)
		if err != nil {
			return // grown over the limit
		}
		back, err := decode(key(e.service.Name, n.ID), again)
		if err != nil || !reflect.DeepEqual(back.service.Nodes, e.service.Nodes) {
			t.Fatalf("decode again: %+v, %v, want %+v", back, err, e.service)
		}
	})
}

// Whatever the names, keys are told apart and lead back.
func TestKeys(t *testing.T) {
	text := rapid.Custom(func(t *rapid.T) string {
		if rapid.Bool().Draw(t, "odd") {
			return rapid.SampledFrom([]string{".", "..", "a/b", "a-b", "/", "-", encodedPrefix, encodedPrefix + "61", encodedPrefix + "61-62", "\xff"}).Draw(t, "text")
		}
		return string(rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "bytes"))
	})
	rapid.Check(t, func(t *rapid.T) {
		name, id, name2, id2 := text.Draw(t, "name"), text.Draw(t, "id"), text.Draw(t, "name2"), text.Draw(t, "id2")
		at := key(name, id)
		if strings.Count(at, "/") != 1 || strings.HasPrefix(at, "./") || strings.HasPrefix(at, "../") {
			t.Fatalf("key(%q, %q) = %q", name, id, at)
		}
		if (key(name2, id2) == at) != (name == name2 && id == id2) {
			t.Fatalf("%q, %q and %q, %q have the key %q", name, id, name2, id2, at)
		}
		s := registry.Service{Name: name, Nodes: []registry.Node{{ID: id, Address: "a", Port: 1}}}
		value, err := encode(s, s.Nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		if e, err := decode(at, value); err != nil || e.service.Name != name || e.service.Nodes[0].ID != id {
			t.Fatalf("decode(%q, %s) = %+v, %v", at, value, e, err)
		}
	})
}
