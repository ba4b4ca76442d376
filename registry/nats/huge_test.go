package nats_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
	"github.com/micro/sidecar/registry/nats"
)

// Values of several megabytes, on a server that takes them, are passed over.
func TestHugeValues(t *testing.T) {
	s := testserver.NATS(t, func(o *server.Options) { o.MaxPayload = 8 << 20 })
	u, err := engineurl.Parse("nats", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var out testserver.Output
	r, err := nats.Open(bounded(t, 30*time.Second), u, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	w := watch(t, r.Registry)
	conn, err := gonats.Connect("nats://" + s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	register(t, r.Registry, "svc", 0)
	for i := range 2 {
		put(t, conn, fmt.Sprintf("svc.h%d", i), strings.Repeat("x", 5<<20))
		put(t, conn, fmt.Sprintf("huge%d.n", i), `"`+strings.Repeat("x", 5<<20)+`"`)
	}
	register(t, r.Registry, "last", 0)
	within(t, 30*time.Second, "the last", func() bool { return w.nodes("last") == 1 && w.nodes("svc") == 1 })
	if names, err := r.List(bounded(t, 30*time.Second)); err != nil || !slices.Equal(names, []string{"last", "svc"}) {
		t.Errorf("List: %q, %v", names, err)
	}
	if have, err := r.Get(bounded(t, 30*time.Second), "svc"); err != nil || len(have) != 1 || len(have[0].Nodes) != 1 {
		t.Errorf("Get: %v", err)
	}
	if n := strings.Count(out.String(), "passed over"); n != 1 {
		t.Errorf("%d lines of log:\n%.1000s", n, out.String())
	}
}
