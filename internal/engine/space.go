package engine

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// reserve is how much of the disk the engine leaves free, in bytes: a
	// server that cannot write stops keeping messages at all.
	reserve = 128 << 20
	// spaceInterval is the least time between two looks at the disk.
	spaceInterval = 100 * time.Millisecond
)

// space remembers how full the disk was.
type space struct {
	looked atomic.Int64 // nanoseconds since the engine was opened
	full   atomic.Pointer[error]
}

// Full says why the engine should take no further message, or nil: the disk of
// its data directory is all but full. It costs a look at the disk ten times a
// second, and else nothing.
func (e *Engine) Full() error {
	now, last := int64(time.Since(e.begun)), e.space.looked.Load()
	if (last == 0 || now-last > int64(spaceInterval)) && e.space.looked.CompareAndSwap(last, now) {
		var full error
		if free, err := freeSpace(e.o.DataDir); err == nil && free < reserve {
			full = fmt.Errorf("the disk of %s has %d MiB left, and %d MiB stay free", e.o.DataDir, free>>20, reserve>>20)
		}
		e.space.full.Store(&full)
	}
	if full := e.space.full.Load(); full != nil {
		return *full
	}
	return nil
}
