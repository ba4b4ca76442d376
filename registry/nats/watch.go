package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/registry"
)

const (
	// checkInterval is how often a watch makes sure that the bucket it
	// watches is still the one of that name.
	checkInterval = 5 * time.Second
	// loadTimeout bounds the beginning of a watch.
	loadTimeout = 30 * time.Second
)

// Watch implements [registry.Registry]. Its events carry the services. While
// the server is away nothing expires, as nothing can be renewed; when it is
// back the watch begins anew by itself and reports the zero event.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	for {
		lost, err := r.link.Wait(ctx)
		if err != nil {
			return ctx.Err()
		}
		err = r.watch(ctx, lost, changed)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, link.ErrLost):
			return fmt.Errorf("watch the registry: %w", err)
		}
	}
}

// watch is one watch on one connection.
func (r *Registry) watch(ctx context.Context, lost <-chan struct{}, changed func(registry.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin, done := context.WithTimeout(ctx, loadTimeout)
	defer done()
	w, err := call(begin, r, func(_ context.Context, b *store) (jetstream.KeyWatcher, error) {
		return b.WatchAll(ctx) // it ends with the watch, not with this call
	})
	if err != nil {
		return err
	}
	defer stop(w)

	v := newView()
	if err := load(begin, w, lost, func(kv jetstream.KeyValueEntry) { v.apply(r, kv) }); err != nil {
		return err
	}
	r.lives.keep(v.byKey)
	now := time.Now()
	v.expire(now)
	for name := range v.services {
		v.event(name, now) // what the zero event stands for
	}
	changed(registry.Event{})
	return r.follow(ctx, v, w, lost, changed)
}

// follow reports changes until the watch breaks.
func (r *Registry) follow(ctx context.Context, v *view, w jetstream.KeyWatcher, lost <-chan struct{}, changed func(registry.Event)) error {
	report := func(name string) {
		if e, news := v.event(name, time.Now()); news {
			changed(e)
		}
	}
	watched := r.store.Load().created
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	expiry := time.NewTimer(v.next(time.Now()))
	defer expiry.Stop()
	for {
		select {
		case kv, ok := <-w.Updates():
			if !ok {
				return errWatchEnded
			}
			if kv != nil && !r.restored(ctx, v, kv) {
				report(v.apply(r, kv))
			}
		case <-expiry.C:
			for _, e := range v.expire(time.Now()) {
				report(e.service.Name)
				if e.overdue(time.Now()) {
					r.repaired(r.retire(ctx, r.store.Load(), e))
				}
			}
		case <-check.C:
			if err := r.same(ctx, watched); err != nil {
				return err
			}
		case <-lost:
			return link.ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
		expiry.Reset(v.next(time.Now()))
	}
}

// apply takes one change and returns the name of the service, "" when nothing
// that is known has changed.
func (v *view) apply(r *Registry, kv jetstream.KeyValueEntry) string {
	r.saw(kv.Revision())
	if e := r.decode(kv); e != nil {
		r.lives.learn(e)
		return v.put(e)
	}
	r.lives.forget(kv.Key())
	return v.remove(kv.Key())
}

// restored reports whether a removal is none: the server collected an entry too
// early, and it was put back. That is then told like any registration.
func (r *Registry) restored(ctx context.Context, v *view, kv jetstream.KeyValueEntry) bool {
	e := v.byKey[kv.Key()]
	if e == nil || kv.Operation() == jetstream.KeyValuePut || !e.early(time.Now()) {
		return false
	}
	ok, err := r.restore(ctx, r.store.Load(), e)
	r.repaired(err)
	return ok && err == nil
}

// repaired tells of a repair that failed: nobody else is waiting for it.
func (r *Registry) repaired(err error) {
	if err != nil {
		r.odd.Warn("registry: after a clock was set", "error", err)
	}
}

// same returns an error when the bucket was removed or replaced. A server that
// does not answer is none: the connection will tell.
func (r *Registry) same(ctx context.Context, created time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, checkInterval/2)
	defer cancel()
	have, err := link.Once(ctx, r.link, func(ctx context.Context) (time.Time, error) {
		s, err := r.js.Stream(ctx, "KV_"+r.bucket)
		if err != nil {
			return time.Time{}, err
		}
		return s.CachedInfo().Created, nil
	})
	switch {
	case missing(err):
		return fmt.Errorf("bucket %s was removed: %w", r.bucket, err)
	case err == nil && !have.Equal(created):
		if _, err := r.open(ctx); err != nil {
			return err
		}
		return fmt.Errorf("bucket %s was replaced", r.bucket)
	}
	return nil
}
