//go:build unix

package nats_test

import (
	"testing"
	"time"

	"github.com/micro/sidecar/internal/engine/enginetest"
)

func TestPausedHost(t *testing.T) {
	dir := t.TempDir()
	host := enginetest.Start(t, dir, "")
	r := openRegistry(t, openEngine(t, dir))
	w := watch(t, r)
	register(t, r, "before", 0)
	host.Pause()
	// Before the loss is noticed, while it is, and after.
	for end := time.Now().Add(9 * time.Second); time.Now().Before(end); {
		start := time.Now()
		if err := r.Register(bounded(t, 300*time.Millisecond), service("paused", "n"), 0); err == nil {
			t.Fatal("Register on a paused host: no error")
		}
		if _, err := r.Get(bounded(t, 300*time.Millisecond), "before"); err == nil {
			t.Fatal("Get on a paused host: no error")
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("two calls of 300ms took %v", took)
		}
	}
	host.Continue()
	start := time.Now()
	register(t, r, "after", 0)
	t.Logf("registered %v after it ran on", time.Since(start))
	within(t, 30*time.Second, "the watch is live again", func() bool { return w.zeros() > 1 })
	register(t, r, "later", 0)
	within(t, 30*time.Second, "the watch reports", func() bool { return w.nodes("later") == 1 })
}
