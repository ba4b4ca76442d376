package engine

import (
	"encoding/json"
	"path/filepath"
	"testing"
)

func FuzzPublished(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", "[]", `{"format":1,"version":"v","address":"127.0.0.1:4222","pid":1,"token":"t"}`,
		`{"format":2}`, `{"format":9,"address":1}`, `{"format":1,"address":"::1","token":"t"}`, `{"format":1e9}`,
		`{"Format":1,"ADDRESS":"[::1]:1","token":"t","pid":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePublished(data)
		if err != nil || p.Format > format {
			return
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parsePublished(again); err != nil || back != p {
			t.Errorf("%s: read again: %+v, %v", again, back, err)
		}
	})
}

func TestPublishReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host.json")
	for _, token := range []string{"first", "second"} {
		want := published{Format: format, Version: "v", Address: "127.0.0.1:1", PID: 1, Token: token}
		if err := want.write(path); err != nil {
			t.Fatal(err)
		}
		if have, err := readPublished(path); err != nil || have != want {
			t.Errorf("read %+v, %v", have, err)
		}
	}
	if left, err := filepath.Glob(path + "*"); err != nil || len(left) != 1 {
		t.Errorf("files: %v, %v", left, err)
	}
}
