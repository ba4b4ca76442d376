package nats

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine/link"
)

var errWatchEnded = errors.New("the server ended the watch")

// read returns the entries whose keys match, as they are at one time.
func (r *Registry) read(ctx context.Context, pattern string) ([]*entry, error) {
	return call(ctx, r, func(ctx context.Context, b *store) ([]*entry, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// All of a bucket is more than a direct get answers, mostly, and a
		// watch is as good; but only a direct get knows whether it lags behind.
		if b.direct && (pattern != ">" || b.replicated) {
			if entries, ok, err := r.readDirect(ctx, b, pattern); ok || err != nil {
				return entries, err
			}
		}
		w, err := b.Watch(ctx, pattern)
		if err != nil {
			return nil, err
		}
		defer stop(w)
		found := make(map[string]*entry) // nil for what was removed
		each := func(kv jetstream.KeyValueEntry) { found[kv.Key()] = r.decode(kv) }
		if err := load(ctx, w, nil, each); err != nil {
			return nil, err
		}
		if err := r.complete(ctx, w, pattern, found, each); err != nil {
			return nil, err
		}
		entries := make([]*entry, 0, len(found))
		for _, e := range found {
			if e != nil {
				r.lives.correct(e)
				entries = append(entries, e)
			}
		}
		return entries, nil
	})
}

// lateTime is how long complete waits for what is missing before it asks again
// how much there is.
const lateTime = 20 * time.Millisecond

// complete reads on until all keys are there that the bucket has. The beginning
// of a watch may be told too early: a key that is written while the server
// makes the watch is taken off what is to come at its old place and comes
// later at its new one, and the count, which is then too low, cuts off the
// newest ones.
func (r *Registry) complete(ctx context.Context, w jetstream.KeyWatcher, pattern string, found map[string]*entry, each func(jetstream.KeyValueEntry)) error {
	for {
		there, err := r.count(ctx, pattern)
		if err != nil {
			return err
		}
		late := time.NewTimer(lateTime)
		for waiting := true; waiting && len(found) < there; {
			select {
			case kv, ok := <-w.Updates():
				if !ok {
					late.Stop()
					return errWatchEnded
				}
				if kv != nil {
					each(kv)
				}
			case <-late.C:
				waiting = false
			case <-ctx.Done():
				late.Stop()
				return ctx.Err()
			}
		}
		late.Stop()
		if len(found) >= there {
			return nil
		}
	}
}

// count returns how many keys match, removed ones that left a mark among them.
func (r *Registry) count(ctx context.Context, pattern string) (int, error) {
	s, err := r.js.Stream(ctx, "KV_"+r.bucket)
	if err != nil {
		return 0, err
	}
	if pattern == ">" {
		return int(s.CachedInfo().State.NumSubjects), nil
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter("$KV."+r.bucket+"."+pattern))
	if err != nil {
		return 0, err
	}
	return len(info.State.Subjects), nil
}

// load hands over what is there when the watch begins.
func load(ctx context.Context, w jetstream.KeyWatcher, lost <-chan struct{}, each func(jetstream.KeyValueEntry)) error {
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errWatchEnded
			case e == nil:
				return nil
			}
			each(e)
		case <-lost:
			return link.ErrLost
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends a watch without waiting for the server, which may not answer. Its
// channel must be emptied: the watch holds a lock while it fills it.
func stop(w jetstream.KeyWatcher) {
	go func() {
		for range w.Updates() {
		}
	}()
	go func() { _ = w.Stop() }() // the server drops what it no longer hears of
}

// decode returns what an entry holds, nil when it is no registration.
func (r *Registry) decode(kv jetstream.KeyValueEntry) *entry {
	if kv.Operation() != jetstream.KeyValuePut {
		return nil
	}
	e, err := decode(kv.Key(), kv.Value())
	if err != nil {
		r.complain(kv.Key(), err)
		return nil
	}
	e.revision = kv.Revision()
	return e
}

// complain tells of an entry that makes no sense.
func (r *Registry) complain(key string, err error) {
	r.odd.Warn("registry: an entry that is no registration is passed over", "key", key, "error", err)
}
