package main

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Straight to the node, without a sidecar between: the exchanges are complete.
func TestKinds(t *testing.T) {
	node := httptest.NewServer(handler(t.Context()))
	defer node.Close()
	for _, k := range kinds {
		if strings.Contains(k.name, "/broker") {
			continue // the sidecar's own
		}
		conns, err := openMany(t.Context(), node.Listener.Addr().String(), k, 3)
		if err != nil || len(conns) != 3 {
			t.Errorf("%s: %d connections, %v", k.name, len(conns), err)
		}
		for _, c := range conns {
			_ = c.Close()
		}
		k.status = http.StatusTeapot
		if conns, err := openMany(t.Context(), node.Listener.Addr().String(), k, 1); err == nil || len(conns) != 0 {
			t.Errorf("%s: another answer passed for the right one", k.name)
		}
	}
}

func TestReadFrame(t *testing.T) {
	for frame, want := range map[string]string{
		"\x82\x02ab": "ab", "\x82\x00": "", "\x82\x7e\x00\x02ab": "ab", "\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x02ab": "ab",
	} {
		if got, err := readFrame(bufio.NewReader(strings.NewReader(frame))); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v", frame, got, err)
		}
	}
	for _, bad := range []string{"", "\x82", "\x82\x02a", "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if got, err := readFrame(bufio.NewReader(strings.NewReader(bad))); err == nil {
			t.Errorf("%q passed for a frame: %q", bad, got)
		}
	}
}
