package sleep

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	for _, tt := range []struct {
		d, ends, took time.Duration // ends 0: the context is over before
		want          error
	}{
		{time.Minute, time.Hour, time.Minute, nil},
		{time.Hour, time.Minute, time.Minute, context.DeadlineExceeded},
		{time.Minute, 0, 0, context.DeadlineExceeded},
		{0, time.Hour, 0, nil},
		{-time.Minute, 0, 0, context.DeadlineExceeded},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tt.ends)
			defer cancel()
			begun := time.Now()
			if err := For(ctx, tt.d); !errors.Is(err, tt.want) || time.Since(begun) != tt.took {
				t.Errorf("For(%v) with %v left: %v after %v", tt.d, tt.ends, err, time.Since(begun))
			}
		})
	}
}
