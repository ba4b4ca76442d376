package services

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRegistration(t *testing.T) {
	b, err := StartBackend()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := registry.DecodeService([]byte(Registration(7, 2, b)))
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "go.micro.srv.s7" || len(s.Nodes) != 2 || s.Nodes[0].ID == s.Nodes[1].ID {
		t.Errorf("registered %+v", s)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, n := range s.Nodes { // each is the backend
		url := fmt.Sprintf("http://%s:%d%s", n.Address, n.Port, Path(7))
		if got, err := Send(t.Context(), client, "proxy", http.MethodGet, url, "", http.StatusOK); err != nil || got != b.Answer() {
			t.Errorf("GET %s: %q, %v", url, got, err)
		}
		if _, err := Send(t.Context(), client, "proxy", http.MethodGet, url, "", http.StatusNotFound); err == nil || !strings.Contains(err.Error(), "200") {
			t.Errorf("a status that was not expected: %v", err)
		}
	}
}

func TestEach(t *testing.T) {
	var sum atomic.Int64
	if err := Each(t.Context(), 10, 3, func(_ context.Context, i int) error { sum.Add(int64(i)); return nil }); err != nil || sum.Load() != 45 {
		t.Errorf("sum %d, %v", sum.Load(), err)
	}
	broken := errors.New("broken")
	if err := Each(t.Context(), 1000, 1, func(_ context.Context, i int) error {
		if i > 1 {
			t.Errorf("went on with %d", i)
		}
		return broken
	}); !errors.Is(err, broken) {
		t.Errorf("ended with %v", err)
	}
}
