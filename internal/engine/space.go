package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/sleep"
)

const (
	// reserve is how much of the disk messages leave free, in bytes, so that
	// registrations and acknowledgements can still be written.
	reserve = 128 << 20
	// least is what has to be free for anything to be written. A server that
	// fails to write has to be started anew.
	least = 8 << 20
	// mendable is what has to be free for that start.
	mendable = 2 * least
	// spaceInterval is the least time between two looks at the disk.
	spaceInterval = 100 * time.Millisecond

	// mendFirst and mendLast bound the time between a failed write and the
	// start of the server: a disk that is at fault for another reason than its
	// size must not keep it busy.
	mendFirst = time.Second
	mendLast  = 30 * time.Second
)

// space remembers how full the disk was.
type space struct {
	looked atomic.Int64 // nanoseconds since the engine was opened
	room   atomic.Pointer[room]
}

// room says what there is no room for, or nil.
type room struct{ messages, anything error }

// Full says why the engine should take no further message, or nil: the disk of
// its data directory is all but full, or could not be written to. It costs a
// look at the disk ten times a second, and else nothing.
func (e *Engine) Full() error { return e.look().messages }

// Spent says why the engine can store nothing at all, registrations included,
// or nil. It costs what Full does.
func (e *Engine) Spent() error { return e.look().anything }

func (e *Engine) look() room {
	now, last := int64(time.Since(e.begun)), e.space.looked.Load()
	if (last == 0 || now-last > int64(spaceInterval)) && e.space.looked.CompareAndSwap(last, now) {
		e.space.room.Store(e.measure())
	}
	if known := e.space.room.Load(); known != nil {
		return *known
	}
	return room{}
}

func (e *Engine) measure() *room {
	var r room
	if free, err := freeSpace(e.o.DataDir); err == nil {
		if free < reserve {
			r.messages = fmt.Errorf("the disk of %s has %d MiB left, and %d MiB stay free", e.o.DataDir, free>>20, reserve>>20)
		}
		if free < least {
			r.anything = fmt.Errorf("the disk of %s is full", e.o.DataDir)
		}
	}
	e.mu.Lock()
	h := e.hosted
	e.mu.Unlock()
	if h != nil && h.spoiled() {
		err := fmt.Errorf("the disk of %s could not be written to", e.o.DataDir)
		if r.messages == nil {
			r.messages = err
		}
		r.anything = err
	}
	return &r
}

// tend starts the hosted server anew when it could not write to its disk: it
// gives out what it has, but takes nothing any more, even when there is room
// again. It ends with ctx.
func (e *Engine) tend(ctx context.Context) {
	wait, mended := mendFirst, time.Time{}
	for {
		e.mu.Lock()
		h := e.hosted
		e.mu.Unlock()
		if h == nil { // ctx has ended before this process was the host
			return
		}
		select {
		case <-h.broken():
		case <-ctx.Done():
			return
		}
		if wait *= 2; mended.IsZero() || time.Since(mended) > 2*mendLast {
			wait = mendFirst
		}
		e.o.Log.Error("embedded engine: the disk cannot be written to: nothing is stored until that works again", "data_dir", e.o.DataDir)
		if !e.mend(ctx, min(wait, mendLast)) {
			return
		}
		mended = time.Now()
		e.o.Log.Info("embedded engine: started anew, after the disk could not be written to", "data_dir", e.o.DataDir)
	}
}

// mend waits, also for room on the disk, and then has another server in the
// place of the hosted one; false means that ctx has ended.
func (e *Engine) mend(ctx context.Context, wait time.Duration) bool {
	complained := ""
	for ; sleep.For(ctx, wait) == nil; wait = spaceInterval {
		if free, err := freeSpace(e.o.DataDir); err == nil && free < mendable {
			continue
		}
		err := e.replace(ctx)
		if err == nil {
			return true
		}
		if err.Error() != complained {
			complained = err.Error()
			e.o.Log.Error("embedded engine: cannot start anew", "error", err)
		}
	}
	return false
}

// replace stops the hosted server, if it is not stopped, and starts one. The
// lock stays taken.
func (e *Engine) replace(ctx context.Context) error {
	e.mu.Lock()
	h := e.hosted
	e.mu.Unlock()
	if h != nil {
		stopping, cancel := context.WithTimeout(ctx, openTimeout)
		defer cancel()
		if err := h.stop(stopping); err != nil {
			return err
		}
		e.mu.Lock()
		e.hosted = nil
		e.mu.Unlock()
	}
	h, err := e.host()
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.hosted = h
	e.mu.Unlock()
	return nil
}
