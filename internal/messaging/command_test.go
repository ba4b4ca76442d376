package messaging

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzPlainAck holds the short way against encoding/json.
func FuzzPlainAck(f *testing.F) {
	for _, seed := range []string{`{"Ack":"17"}`, `{"Ack":"1-2"}`, `{"Ack":""}`, `{"Ack":"a","Ack":"b"}`, `{"Ack":"\u0031"}`, `{"Ack":"1"}}`, `{"Ack": "1"}`, `{"Ack":"`, `{"Ack":"` + strings.Repeat("1", maxID+1) + `"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		id, ok := plainAck(data)
		if !ok {
			return
		}
		var frame struct{ Ack string }
		if err := json.Unmarshal(data, &frame); err != nil || frame.Ack != id || len(id) > maxID {
			t.Errorf("%q is %q, encoding/json says %q, %v", data, id, frame.Ack, err)
		}
	})
}

func TestPlainAck(t *testing.T) {
	for frame, want := range map[string]bool{`{"Ack":"17"}`: true, `{"Ack":"1700000000000-0"}`: true, `{"Ack":"a b"}`: false, `{"Nack":"17"}`: false} {
		if _, ok := plainAck([]byte(frame)); ok != want {
			t.Errorf("%s: %v", frame, ok)
		}
	}
}
