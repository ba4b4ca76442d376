package discovery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// hanging is a registry that, while it hangs, answers no question.
type hanging struct {
	*memory.Registry
	hangs atomic.Bool
}

func (h *hanging) Get(ctx context.Context, name string) ([]registry.Service, error) {
	if h.hangs.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return h.Registry.Get(ctx, name)
}

// A question that is not answered must not cost the next renewal: the
// registration would expire.
func TestRenewalGoesOnWhileTheEngineAnswersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &hanging{Registry: memory.New()}
		d := New(e, slog.New(slog.DiscardHandler))
		defer d.Close()
		ctx, cancel := context.WithCancel(t.Context())
		var announcing sync.WaitGroup
		announcing.Go(func() { d.Announce(ctx, service("foo", "a"), 20*time.Second, 10*time.Second) })
		defer announcing.Wait()
		defer cancel()
		synctest.Wait()
		e.hangs.Store(true)
		must(t, e.Register(ctx, service("foo", "b"), 0)) // a hint
		time.Sleep(time.Minute)
		versions, err := e.Registry.Get(ctx, "foo")
		if err != nil || !holds(versions, service("foo", "a")) {
			t.Errorf("after a minute the registry holds %v, %v", versions, err)
		}
	})
}

// A question that is not answered must not end a watch in silence.
func TestAWatchOutlivesAQuestionThatIsNotAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &hanging{Registry: memory.New()}
		e.hangs.Store(true)
		must(t, e.Register(t.Context(), service("foo", "a"), 0))
		d := New(e, slog.New(slog.DiscardHandler))
		defer d.Close()
		live := make(chan struct{})
		watching := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { watching <- d.Watch(ctx, "foo", func() { close(live) }, func(Change) error { return nil }) }()
		defer func() {
			cancel()
			if err := <-watching; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		synctest.Wait() // the question waits for its answer, which never comes
		e.hangs.Store(false)
		select {
		case <-live:
		case <-time.After(time.Minute):
			t.Error("the watch never began")
		}
	})
}
