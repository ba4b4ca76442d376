package registrytest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/registry"
)

// Eventually waits until wrong returns "", for what comes from elsewhere and
// gives no sign. What is wrong for too long fails the test.
func Eventually(t *testing.T, wrong func() string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(patience)
	for range tick.C {
		what := wrong()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
	}
}

// Nodes returns a service's nodes as "id=host:port", or "error: " and why not.
func Nodes(ctx context.Context, r registry.Registry, name string) string {
	services, err := r.Get(ctx, name)
	if err != nil {
		return "error: " + err.Error()
	}
	var all []string
	for _, s := range services {
		for _, n := range s.Nodes {
			all = append(all, n.ID+"="+n.HostPort())
		}
	}
	return strings.Join(all, " ")
}
