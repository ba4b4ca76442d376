package nats

import (
	"context"
	"errors"

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
		w, err := b.Watch(ctx, pattern, jetstream.IgnoreDeletes())
		if err != nil {
			return nil, err
		}
		defer stop(w)
		var entries []*entry
		err = load(ctx, w, nil, func(e jetstream.KeyValueEntry) {
			if e := r.decode(e); e != nil {
				entries = append(entries, e)
			}
		})
		return entries, err
	})
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
