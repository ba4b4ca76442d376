package registry_test

import (
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/micro/sidecar/registry"
)

func TestCompareVersions(t *testing.T) {
	ordered := []string{"", "-rc1", "0.9", "1", "1.0", "1.0.0-alpha", "1.0.0-rc2", "1.0.0-rc10", "1.0.0", "1.0.0.1", "1.2", "1.9.0", "1.10.0",
		"2", "10", "18446744073709551616", "18446744073709551617", "latest", "v1.9", "v1.10"}
	for i, a := range ordered {
		for j, b := range ordered {
			have := registry.CompareVersions(a, b)
			if (have < 0) != (i < j) || (have > 0) != (i > j) {
				t.Errorf("CompareVersions(%q, %q) = %d", a, b, have)
			}
		}
	}
}

func TestCompareVersionsIsAnOrder(t *testing.T) {
	version := rapid.StringMatching(`[0-9a.-]{0,6}`)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := version.Draw(t, "a"), version.Draw(t, "b"), version.Draw(t, "c")
		ab, ba, bc, ac := registry.CompareVersions(a, b), registry.CompareVersions(b, a), registry.CompareVersions(b, c), registry.CompareVersions(a, c)
		if ab != -ba || (ab == 0) != (a == b) {
			t.Fatalf("%q against %q: %d and %d", a, b, ab, ba)
		}
		if ab <= 0 && bc <= 0 && ac > 0 {
			t.Fatalf("%q <= %q <= %q, but the first is newer than the last", a, b, c)
		}
	})
}

func TestMerge(t *testing.T) {
	versions := []registry.Service{
		{Name: "foo", Version: "1.9", Metadata: map[string]string{"v": "9"}, Nodes: []registry.Node{{ID: "c"}, {ID: "a"}}},
		{Name: "foo", Version: "1.10", Metadata: map[string]string{"v": "10"}, Endpoints: []registry.Endpoint{{Name: "E"}}, Nodes: []registry.Node{{ID: "b"}}},
	}
	for range 2 {
		text, err := json.Marshal(registry.Merge("foo", versions))
		if err != nil {
			t.Fatal(err)
		}
		const node = `"address":"","port":0,"metadata":{}}`
		want := `{"name":"foo","version":"1.10","metadata":{"v":"10"},"endpoints":[{"name":"E"}],"nodes":[{"id":"a",` + node + `,{"id":"b",` + node + `,{"id":"c",` + node + `]}`
		if string(text) != want {
			t.Errorf("have %s\nwant %s", text, want)
		}
		slices.Reverse(versions)
	}
	if versions[0].Nodes[0].ID != "c" || versions[0].Nodes[0].Metadata != nil {
		t.Error("Merge changed what it was given")
	}
	text, err := json.Marshal(registry.Merge("none", nil))
	if err != nil || string(text) != `{"name":"none","version":"","metadata":{},"endpoints":[],"nodes":[]}` {
		t.Errorf("nothing merged: %s, %v", text, err)
	}
}
