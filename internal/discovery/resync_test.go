package discovery

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// deaf is a registry whose watch says that it is live, and then nothing more.
type deaf struct{ *memory.Registry }

func (deaf) Watch(ctx context.Context, changed func(registry.Event)) error {
	changed(registry.Event{})
	<-ctx.Done()
	return ctx.Err()
}

// A change whose hint was lost is told all the same, only later.
func TestWatchFindsWhatTheEngineDidNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := deaf{memory.New()}
		d := New(e, slog.New(slog.DiscardHandler))
		defer d.Close()
		found := errors.New("found")
		begun := time.Now()
		err := d.Watch(t.Context(), "", func() { must(t, e.Register(t.Context(), service("svc", "a"), 0)) },
			func(c Change) error {
				if c.Action != Create || c.Service.Name != "svc" {
					t.Errorf("got %+v", c)
				}
				return found
			})
		if !errors.Is(err, found) {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 2*watchResync {
			t.Errorf("it took %v", took)
		}
	})
}
