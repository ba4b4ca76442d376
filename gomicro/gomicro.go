// Package gomicro makes a registry or broker of go-micro v5 one of the
// sidecar's, for builds of one's own (docs/plugins.md). It owns the translation
// and the containment of what go-micro's code does not promise: its calls know
// no context, may block or panic, and its watches lose events. It does not own
// the engines: for those that the sidecar has a driver for, that driver is the
// better choice.
package gomicro

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Options refine an adapter. The zero value is usable.
type Options struct {
	// Log is told what is passed over; nil means nowhere.
	Log *slog.Logger
	// Refresh is how often, give or take a fifth, everything is looked at again
	// because a watch may have lost an event; 0 is five seconds.
	Refresh time.Duration
	// MaxBodySize is the largest message body in bytes that is published; 0
	// leaves that to the engine.
	MaxBodySize int64
}

func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Refresh <= 0 {
		o.Refresh = 5 * time.Second
	}
	return o
}

// jitter varies d by a fifth, so that many sidecars do not ask at once.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}

// maxCalls is how many calls of one adapter may be under way in go-micro.
const maxCalls = 64

// calls counts the calls that are under way, those that nobody waits for any
// more among them.
type calls chan struct{}

func newCalls() calls { return make(calls, maxCalls) }

// do makes a call into go-micro on a goroutine of its own and waits for it until ctx
// ends. A panic is an error. What the call returns too late is given to late,
// which may be nil.
func do[T any](ctx context.Context, c calls, what string, call func() (T, error), late func(T)) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, err
	}
	select {
	case c <- struct{}{}:
	case <-ctx.Done():
		return none, fmt.Errorf("%s: %d calls before it are stuck in go-micro: %w", what, maxCalls, ctx.Err())
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result) // the sender gives up when nobody receives
	gone := make(chan struct{})
	defer close(gone)
	go func() {
		var r result
		defer func() { <-c }()
		func() {
			defer func() {
				if p := recover(); p != nil {
					r.err = fmt.Errorf("%s: go-micro panicked: %v", what, p)
				}
			}()
			r.value, r.err = call()
		}()
		select {
		case done <- r:
		case <-gone:
			if late != nil && r.err == nil {
				late(r.value)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, fmt.Errorf("%s: go-micro has not answered: %w", what, ctx.Err())
	}
}
