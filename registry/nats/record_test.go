package nats

import (
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"format":1,"name":"a","node":{"id":"n","address":"x","port":1}}`,
		`{"format":1,"deadline":1,"name":"a","version":"1","metadata":{"k":"v"},"endpoints":[{"name":"E","request":{"name":"r","type":"t","values":[null]}}],"node":{"id":"n"}}`,
		`{"format":1,"deadline":-9e18,"node":{"id":"n"}}`, `{"format":1,"node":null}`,
	} {
		f.Add("a.n", []byte(s))
	}
	f.Add("=h00.=2E", []byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, at string, data []byte) {
		e, err := decode(at, data)
		if err != nil {
			return
		}
		s := e.service
		if key(s.Name, s.Nodes[0].ID) != at || len(s.Nodes) != 1 {
			t.Fatalf("decode(%q, %q) = %+v", at, data, s)
		}
		again, err := encode(s, s.Nodes[0], e.written)
		if err != nil {
			return // grown over the limit
		}
		if back, err := decode(at, again); err != nil || !back.written.Equal(e.written) {
			t.Fatalf("decode again: %+v, %v", back, err)
		}
	})
}

// TestBytes keeps names and ids that JSON cannot hold.
func TestBytes(t *testing.T) {
	s := registry.Service{Name: "n\xff\x00", Nodes: []registry.Node{{ID: "\xfe", Address: "a", Port: 1}}}
	data, err := encode(s, s.Nodes[0], time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := decode(key(s.Name, "\xfe"), data)
	if err != nil || e.service.Name != s.Name || e.service.Nodes[0].ID != "\xfe" {
		t.Errorf("decode: %+v, %v", e, err)
	}
}

func TestDeepValue(t *testing.T) {
	deep := `{"format":1,"name":"a","node":{"id":"n"},"endpoints":[{"request":` +
		strings.Repeat(`{"values":[`, 20000) + strings.Repeat(`]}`, 20000) + `}]}`
	if _, err := decode("a.n", []byte(deep)); err == nil {
		t.Error("a value nested 20000 deep: no error")
	}
}
