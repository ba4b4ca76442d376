package rpc

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestWantsStream(t *testing.T) {
	for _, tt := range []struct {
		name, value string
		want        bool
	}{
		{"Accept", "application/x-ndjson", true},
		{"accept", "text/html , Application/X-NDJSON ; q=0.5", true},
		{"Content-Type", "application/x-ndjson; charset=utf-8", true},
		{"Accept", "*/*", false},
		{"Accept", "application/x-ndjson2", false},
		{"X-Accept", "application/x-ndjson", false},
		{"Content-Type", "application/json", false},
	} {
		r := &httpmsg.Request{Header: httpmsg.Header{{Name: "Host", Value: "x"}, {Name: tt.name, Value: tt.value}}}
		if got := wantsStream(r); got != tt.want {
			t.Errorf("%s: %s: %v", tt.name, tt.value, got)
		}
	}
}

// all reads the messages of a request until they end, which is an error but
// for io.EOF.
func all(h *Handler, body io.Reader) (messages []string, err error) {
	next := h.lines(&httpmsg.Request{Body: body}).Next
	for {
		m, err := next()
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

func TestLines(t *testing.T) {
	h := &Handler{MaxBody: 10}
	for body, want := range map[string][]string{
		"":                               nil,
		"\n\r\n  \n":                     nil,
		"{}":                             {"{}"},
		" {} \r\n1\n\n2":                 {"{}", "1", "2"},
		strings.Repeat("x", 10) + "\r\n": {strings.Repeat("x", 10)},
	} {
		if got, err := all(h, strings.NewReader(body)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", body, got, err)
		}
	}
	for _, long := range []string{strings.Repeat("x", 11), strings.Repeat("\r", 5000), strings.Repeat(" ", 5000)} {
		if _, err := all(h, strings.NewReader("1\n"+long)); statusOf(err) != http.StatusRequestEntityTooLarge {
			t.Errorf("a line that is too long: %v", err)
		}
	}
	if got, err := all(h, io.MultiReader(strings.NewReader("1\n2"), iotest.ErrReader(errors.New("gone")))); statusOf(err) != http.StatusBadRequest || !slices.Equal(got, []string{"1"}) {
		t.Errorf("a body that breaks off: %q, %v", got, err)
	}
}

// FuzzLines: the messages are the lines, in order, none empty and none longer
// than the limit.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n\n[1]\r\n2"))
	f.Add(bytes.Repeat([]byte("x"), 5000))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := &Handler{MaxBody: 4500}
		got, err := all(h, bytes.NewReader(body))
		var want []string
		for line := range bytes.SplitSeq(body, []byte("\n")) {
			if len(bytes.TrimSuffix(line, []byte("\r"))) > int(h.MaxBody) {
				if err == nil {
					t.Fatal("a line over the limit was taken")
				}
				break
			}
			if line = bytes.TrimSpace(line); len(line) > 0 {
				want = append(want, string(line))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q was read as %q", body, got)
		}
	})
}
