package streams

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		_, short, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, long, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		stopped := make(chan error)
		go func() { stopped <- s.Stop(t.Context(), time.Minute) }()
		synctest.Wait()
		if _, _, err := s.Begin(t.Context()); !errors.Is(err, ErrStopping) {
			t.Errorf("a stream that comes too late: %v", err)
		}
		short()
		<-ctx.Done()
		if took := time.Since(begun); took != time.Minute || !errors.Is(context.Cause(ctx), ErrStopping) {
			t.Errorf("ended after %v because of %v", took, context.Cause(ctx))
		}
		time.Sleep(time.Second)
		select {
		case err := <-stopped:
			t.Errorf("stopped with a stream left: %v", err)
		default:
		}
		long()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// Streams that end by themselves are not ended, and are not waited for longer.
func TestStopInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		ctx, done, err := s.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		time.AfterFunc(time.Second, func() {
			if ctx.Err() != nil {
				t.Error("it was ended")
			}
			done()
		})
		if err := s.Stop(t.Context(), time.Minute); err != nil || time.Since(begun) != time.Second {
			t.Errorf("stopped after %v: %v", time.Since(begun), err)
		}
	})
}

func TestStopGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		parent, cancel := context.WithCancel(t.Context())
		ctx, done, err := s.Begin(parent)
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if err := s.Stop(impatient, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if !errors.Is(context.Cause(ctx), ErrStopping) {
			t.Error("the stream goes on")
		}
		cancel()
		done()
	})
}
