//go:build unix

package engine_test

import (
	"errors"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
)

func TestPausedHost(t *testing.T) {
	dir := t.TempDir()
	host := enginetest.Start(t, dir, "")
	e := open(t, engine.Options{DataDir: dir, CanHost: true})
	kv := bucket(t, e)
	if _, err := kv.PutString(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	leaving, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
	if err != nil {
		t.Fatal(err)
	}
	host.Pause()
	start := time.Now()
	if err := e.Ping(bounded(t, 200*time.Millisecond)); err == nil {
		t.Error("Ping of a paused host: no error")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Ping took %v, its context 200ms", took)
	}
	// The loss is noticed, and then still nobody takes over.
	within(t, 30*time.Second, "the loss is noticed", func() bool {
		start := time.Now()
		err := e.Ping(bounded(t, 10*time.Second))
		return err != nil && time.Since(start) < 50*time.Millisecond
	})
	t.Logf("noticed after %v", time.Since(start))
	if e.Hosting() {
		t.Fatal("two hosts share a store")
	}
	start = time.Now()
	if _, err := engine.Open(bounded(t, time.Second), engine.Options{DataDir: dir}); err == nil || errors.Is(err, engine.ErrNoHost) {
		t.Errorf("Open beside a paused host: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Open took %v, its context 1s", took)
	}
	start = time.Now()
	if err := leaving.Close(bounded(t, 10*time.Second)); err != nil {
		t.Errorf("Close beside a paused host: %v", err)
	}
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("Close took %v", took)
	}
	host.Continue()
	start = time.Now()
	within(t, 30*time.Second, "the connections recover", func() bool { return e.Ping(bounded(t, 5*time.Second)) == nil })
	t.Logf("recovered %v after it ran on", time.Since(start))
	if _, err := kv.PutString(bounded(t, 30*time.Second), "k", "w"); err != nil {
		t.Error(err)
	}
	if e.Hosting() {
		t.Fatal("two hosts share a store")
	}
}
