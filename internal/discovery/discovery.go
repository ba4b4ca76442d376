// Package discovery keeps what requests need to know of the registry: an
// immutable snapshot of every service in use, renewed by the engine's watch.
// Once a service is known, [Discovery.Lookup] is one look-up in a map that
// readers do not lock; an engine that is away leaves the last good picture in
// place. It also keeps the application's own registration alive. It does not
// choose among nodes (package balance) and knows no engine.
package discovery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

const (
	// readTimeout bounds one question to the engine.
	readTimeout = 5 * time.Second
	// maxReads bounds the questions under way, so that requests for names that
	// do not exist cannot flood the engine.
	maxReads = 32
	// resync is how often everything in use is read again, in case a watch
	// stopped without saying so, and resyncGap the pause after each read then:
	// many services in use make it rarer, not a burden.
	resync    = 30 * time.Second
	resyncGap = 100 * time.Millisecond
	// watchResync is the same for a watch stream.
	watchResync = 15 * time.Second
	// retry is the pause after a watch broke or a read failed.
	retry = 500 * time.Millisecond
	// doubtTime is how long an engine that was away is not believed when it
	// says that it knows a service no longer: it may have come back empty, and
	// who was registered needs some seconds to notice and register again.
	doubtTime = 10 * time.Second
)

// Discovery answers look-ups from snapshots. Create it with [New] and keep
// [Discovery.Run] running; all methods are safe for concurrent use.
type Discovery struct {
	reg   registry.Registry
	log   *slog.Logger
	ctx   context.Context // ends with Close: reads and watches end with it
	stop  context.CancelFunc
	tasks sync.WaitGroup
	reads chan struct{}

	// known holds the *entry of every name that has a snapshot. Requests read it
	// without a lock; it is changed with mu held.
	known sync.Map
	// unwritable: it was said that nothing can be registered.
	unwritable atomic.Bool
	// listed is the last answer to List; nobody changes it.
	listed atomic.Pointer[[]string]
	// mu guards what follows, what is in the entries, and changes of known.
	mu      sync.Mutex
	entries map[string]*entry
	away    time.Time // when the engine was last found to be away
	closed  bool
	// followers are told of what is changed here.
	followers map[*queue]bool
}

// New makes a Discovery over reg.
func New(reg registry.Registry, log *slog.Logger) *Discovery {
	ctx, stop := context.WithCancel(context.Background())
	d := &Discovery{
		reg: reg, log: log, ctx: ctx, stop: stop,
		reads:   make(chan struct{}, maxReads),
		entries: map[string]*entry{}, followers: map[*queue]bool{},
	}
	return d
}

// Close ends all reads and watches and waits for them.
func (d *Discovery) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.stop()
	d.tasks.Wait()
}

// Lookup returns the present snapshot of a service. A service that is not
// known yet is asked for at the engine, each time anew, so that one that was
// registered a moment ago is found; the error is then [registry.ErrNotFound]
// or says why the engine could not be asked.
func (d *Discovery) Lookup(ctx context.Context, name string) (*Service, error) {
	if s := d.snapshot(name); s != nil {
		return s, nil
	}
	return d.Refresh(ctx, name)
}

// snapshot returns the present snapshot of a service, nil when there is none.
func (d *Discovery) snapshot(name string) *Service {
	if e, ok := d.known.Load(name); ok {
		return e.(*entry).service.Load()
	}
	return nil
}

// Services returns the present snapshot of every service in use, sorted by
// name. It asks no engine.
func (d *Discovery) Services() []*Service {
	var all []*Service
	d.known.Range(func(_, e any) bool {
		if s := e.(*entry).service.Load(); s != nil {
			all = append(all, s)
		}
		return true
	})
	slices.SortFunc(all, func(a, b *Service) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Refresh reads a service from the engine, updates its snapshot and returns
// it. The read begins after the call; callers at the same time share one.
func (d *Discovery) Refresh(ctx context.Context, name string) (*Service, error) {
	r, err := d.read(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-r.done:
		return r.service, r.err
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, &EngineError{errors.New("it did not answer in time")}
		}
		return nil, ctx.Err()
	}
}

// Get asks the engine for a service, one a version. When the engine is away
// the last good answer is given, if the service is in use.
func (d *Discovery) Get(ctx context.Context, name string) ([]registry.Service, error) {
	versions, err := d.reg.Get(ctx, name)
	if err == nil || errors.Is(err, registry.ErrNotFound) {
		return versions, err
	}
	if s := d.snapshot(name); s != nil {
		return s.Versions, nil
	}
	return nil, &EngineError{err}
}

// List asks the engine for the names of all services. When the engine is away
// the last good answer is given, if there was one.
func (d *Discovery) List(ctx context.Context) ([]string, error) {
	names, err := d.reg.List(ctx)
	if err == nil {
		d.listed.Store(&names)
		return names, nil
	}
	if last := d.listed.Load(); last != nil {
		return *last, nil
	}
	return nil, &EngineError{err}
}

// read asks for a read of name that has not begun yet.
func (d *Discovery) read(name string) (*read, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("discovery closed")
	}
	e := d.entries[name]
	if e == nil {
		e = &entry{d: d, name: name}
		d.entries[name] = e
	}
	return e.ask(), nil
}

// Run watches the engine until ctx ends. It never fails: what breaks is begun
// again.
func (d *Discovery) Run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	if _, ok := d.reg.(registry.NameWatcher); !ok {
		watching.Go(func() { d.hints(ctx, "", d.changed) })
	}
	for sleep.For(ctx, jitter(resync)) == nil {
		d.readAgain(ctx)
	}
}

// readAgain reads everything in use again, little by little.
func (d *Discovery) readAgain(ctx context.Context) {
	d.mu.Lock()
	names := slices.Collect(maps.Keys(d.entries))
	d.mu.Unlock()
	for _, name := range names {
		d.changed(registry.Event{Name: name})
		if sleep.For(ctx, resyncGap) != nil {
			return
		}
	}
}

// doubtAll reads everything in use again, of which the engine may have lost
// some. What is in doubt already stays so no longer for it: a watch may take
// some seconds to be back after the engine is.
func (d *Discovery) doubtAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	for _, e := range d.entries {
		if !time.Now().Before(e.doubted) {
			e.doubt()
		}
		e.ask()
	}
}

// Away notes that somebody found the engine out of reach: when it is back it may
// have lost what it knew.
func (d *Discovery) Away() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteAway()
}

// noteAway doubts everything in use, also what nobody reads while the engine is
// away; d.mu is held. Failures come in numbers: one a second is enough.
func (d *Discovery) noteAway() {
	if time.Since(d.away) < time.Second {
		return
	}
	d.away = time.Now()
	for _, e := range d.entries {
		e.doubt()
	}
}

// hints keeps the engine's watch alive until ctx or the Discovery ends: the
// watch of one service where the engine has that, else the watch of all.
func (d *Discovery) hints(ctx context.Context, name string, note func(registry.Event)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.ctx, cancel)()
	watch := d.reg.Watch
	if w, ok := d.reg.(registry.NameWatcher); ok && name != "" {
		watch = func(ctx context.Context, f func(registry.Event)) error { return w.WatchName(ctx, name, f) }
	}
	for ctx.Err() == nil {
		err := watch(ctx, note)
		if ctx.Err() != nil {
			return
		}
		d.log.Warn("registry watch broke; starting it again", "error", err)
		if sleep.For(ctx, jitter(retry)) != nil {
			return
		}
	}
}

// changed reads again what an event is about and somebody uses. The zero event
// says that a watch begins, perhaps after the engine was away.
func (d *Discovery) changed(ev registry.Event) {
	if ev.Name == "" {
		d.doubtAll()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.entries[ev.Name]; e != nil && !d.closed {
		e.ask()
	}
}

// publish makes e visible to requests; d.mu is held.
func (d *Discovery) publish(e *entry) {
	if _, there := d.known.LoadOrStore(e.name, e); there {
		return
	}
	if _, ok := d.reg.(registry.NameWatcher); ok {
		ctx, cancel := context.WithCancel(d.ctx)
		e.unwatch = cancel
		d.tasks.Go(func() { d.hints(ctx, e.name, e.note) })
	}
}

// forget removes e, which the engine does not know; d.mu is held.
func (d *Discovery) forget(e *entry) {
	delete(d.entries, e.name)
	d.known.CompareAndDelete(e.name, e)
	if e.unwatch != nil {
		e.unwatch()
	}
}

// jitter spreads d by a fifth to either side.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + time.Duration(rand.Int64N(int64(2*d/5)+1))
}
