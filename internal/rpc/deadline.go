package rpc

import (
	"context"
	"sync"
	"time"
)

// deadline is a context that ends at a time, as [context.WithDeadline] makes
// them. It takes no timer before somebody waits for its end, though, and most
// calls are over before: who calls a node goes by Deadline.
type deadline struct {
	context.Context // the parent, and once somebody waits the real thing
	at              time.Time

	mu     sync.Mutex
	cancel context.CancelFunc // nil while nobody waits
	ended  bool
}

// within returns a context that ends after d, or with parent. End it.
func within(parent context.Context, d time.Duration) *deadline {
	at := time.Now().Add(d)
	if before, ok := parent.Deadline(); ok && before.Before(at) {
		at = before
	}
	return &deadline{Context: parent, at: at}
}

// end is the cancel function.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	if d.cancel != nil {
		d.cancel()
	}
}

// real returns the context that somebody can wait for.
func (d *deadline) real() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel == nil {
		d.Context, d.cancel = context.WithDeadline(d.Context, d.at)
		if d.ended {
			d.cancel()
		}
	}
	return d.Context
}

// now is the context that there is, which somebody may wait for or not.
func (d *deadline) now() (_ context.Context, isReal bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Context, d.cancel != nil || d.ended
}

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} { return d.real().Done() }

// Err implements [context.Context].
func (d *deadline) Err() error {
	ctx, isReal := d.now()
	if isReal || !time.Now().Before(d.at) {
		ctx = d.real()
	}
	return ctx.Err()
}

// Value implements [context.Context].
func (d *deadline) Value(key any) any {
	ctx, _ := d.now()
	return ctx.Value(key)
}
