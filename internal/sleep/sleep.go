// Package sleep is time.Sleep for those who may be called off meanwhile.
package sleep

import (
	"context"
	"time"
)

// For waits for d, not at all if it is not positive, or until ctx ends. It
// returns ctx's error.
func For(ctx context.Context, d time.Duration) error {
	if d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}
