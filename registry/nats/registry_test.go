package nats_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/nats"
	"github.com/micro/sidecar/registry/registrytest"
)

func TestMain(m *testing.M) {
	enginetest.Main(nil)
	goleak.VerifyTestMain(m)
}

func TestContract(t *testing.T) {
	e := openEngine(t, t.TempDir())
	registrytest.Run(t, func(t *testing.T) registry.Registry { return openRegistry(t, e) })
}

func openEngine(t testing.TB, dir string) *engine.Engine {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return e
}

func openRegistry(t testing.TB, e *engine.Engine) *nats.Registry {
	t.Helper()
	return openLogged(t, e, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func openLogged(t testing.TB, e *engine.Engine, log *slog.Logger) *nats.Registry {
	t.Helper()
	r, err := nats.New(bounded(t, 30*time.Second), e.RegistryConn(), nats.Options{Log: log})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func bounded(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
