package link_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/engine"
	"github.com/micro/sidecar/internal/engine/enginetest"
	"github.com/micro/sidecar/internal/engine/link"
)

func TestMain(m *testing.M) {
	enginetest.Main(nil)
	goleak.VerifyTestMain(m)
}

// open returns a link to an engine that host hosts; joined, this process takes
// over when host ends.
func open(t *testing.T) (l *link.Link, host *enginetest.Process) {
	t.Helper()
	dir := t.TempDir()
	host = enginetest.Start(t, dir, "")
	e, err := engine.Open(t.Context(), engine.Options{DataDir: dir, CanHost: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	l = link.New(e.RegistryConn())
	t.Cleanup(l.Close)
	return l, host
}

func bounded(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestNeverLongerThanContext(t *testing.T) {
	l, _ := open(t)
	stuck := make(chan struct{})
	defer close(stuck)
	start := time.Now()
	_, err := link.Once(bounded(t, 50*time.Millisecond), l, func(context.Context) (int, error) {
		<-stuck // as a connection does whose lock is held
		return 1, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 10*time.Second {
		t.Errorf("Once: %v after %v", err, time.Since(start))
	}
}

func TestErrorsOfTheCallComeBack(t *testing.T) {
	l, _ := open(t)
	want := errors.New("refused")
	for _, do := range []func(context.Context, *link.Link, func(context.Context) (int, error)) (int, error){link.Once[int], link.Again[int]} {
		calls := 0
		_, err := do(t.Context(), l, func(context.Context) (int, error) {
			calls++
			return 0, want
		})
		if !errors.Is(err, want) || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
	}
}

func TestOnceIsNotRepeated(t *testing.T) {
	l, host := open(t)
	asked, lost := make(chan struct{}), l.Lost()
	go func() {
		<-asked
		host.Kill()
	}()
	_, err := link.Once(bounded(t, 30*time.Second), l, func(ctx context.Context) (int, error) {
		close(asked)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(err, link.ErrLost) {
		t.Errorf("Once: %v, want ErrLost", err)
	}
	select {
	case <-lost:
	default:
		t.Error("Lost does not tell")
	}
}

func TestAgainIsRepeated(t *testing.T) {
	l, host := open(t)
	calls := make(chan struct{}, 2)
	go func() {
		calls <- struct{}{}
		host.Kill()
	}()
	var again atomic.Bool
	start := time.Now()
	n, err := link.Again(bounded(t, 30*time.Second), l, func(ctx context.Context) (int, error) {
		if !again.Swap(true) {
			<-calls
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return 2, nil
	})
	if err != nil || n != 2 {
		t.Errorf("Again: %d, %v", n, err)
	}
	t.Logf("after %v", time.Since(start))
}

func TestClosedConnection(t *testing.T) {
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true})
	if err != nil {
		t.Fatal(err)
	}
	l := link.New(e.RegistryConn())
	if !l.Up() {
		t.Error("not up")
	}
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Wait(bounded(t, 50*time.Millisecond)); err == nil {
		// The news of the end may be under way.
		<-l.Lost()
	}
	if err := link.Ping(t.Context(), l); err == nil {
		t.Error("Ping on a closed connection: no error")
	}
	l.Close()
	l.Close()
}
