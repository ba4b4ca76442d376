package etcd

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

const (
	// checkInterval is how often a watch is asked how far it has come, which
	// tells one that is silent because nothing changes from a dead one.
	checkInterval = 4 * time.Second
	// Pauses after failures double from the first to the last.
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 5 * time.Second
)

var (
	errLost     = errors.New("the connection was lost")
	errSilent   = errors.New("it no longer answers")
	errReplaced = errors.New("etcd's history is not the one that was watched")
)

// Watch implements [registry.Registry] with one watch of the prefix. Its
// events name the service, which is in the key. It never breaks: while the
// cluster is away it is silent, and where changes may have been missed
// (compaction, another history, a lost connection) it begins anew and reports
// the zero event.
func (r *Registry) Watch(ctx context.Context, changed func(registry.Event)) error {
	backoff, failing := firstBackoff, false
	for {
		err := r.watch(ctx, changed, func() {
			if failing {
				r.log.Info("etcd is watched again")
			}
			backoff, failing = firstBackoff, false
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !failing {
			r.log.Warn("etcd cannot be watched, trying again", "error", err)
		}
		failing = true
		if err := sleep.For(ctx, backoff/2+rand.N(backoff)); err != nil {
			return err
		}
		backoff = min(2*backoff, lastBackoff)
	}
}

// watch is one watch, until it breaks.
func (r *Registry) watch(ctx context.Context, changed func(registry.Event), live func()) error {
	// Where a call is refused we log in again, not where a watch is.
	if err := r.Ping(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	answers := r.client.Watch(ctx, r.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithCreatedNotify(), clientv3.WithFragment())
	first, ok := <-answers
	switch {
	case !ok:
		return errSilent
	case first.Err() != nil:
		return first.Err()
	}
	lost := r.lost(ctx)
	live()
	changed(registry.Event{})
	w := progress{cluster: first.Header.GetClusterId(), revision: first.Header.GetRevision(), answered: true}
	for {
		check := time.NewTimer(checkInterval - checkInterval/5 + rand.N(checkInterval/5))
		select {
		case answer, ok := <-answers:
			check.Stop()
			if !ok {
				return errSilent
			}
			if err := w.take(answer); err != nil {
				return err
			}
			r.report(answer.Events, changed)
		case <-check.C:
			if !w.answered {
				return errSilent
			}
			w.answered = false
			if err := r.client.RequestProgress(ctx); err != nil {
				return err
			}
		case <-lost:
			check.Stop()
			return errLost
		case <-ctx.Done():
			check.Stop()
			return ctx.Err()
		}
	}
}

// progress is how far a watch has come.
type progress struct {
	cluster  uint64
	revision int64
	answered bool // since it was asked last
}

// take notes an answer. The client carries a watch over to whatever member it
// reaches next; one that has begun anew, empty, has other or lower numbers.
func (w *progress) take(answer clientv3.WatchResponse) error {
	if err := answer.Err(); err != nil { // compaction is one
		return err
	}
	if answer.Header.GetClusterId() != w.cluster || answer.Header.GetRevision() < w.revision {
		return errReplaced
	}
	w.revision, w.answered = answer.Header.GetRevision(), true
	return nil
}

// lost returns a channel that is closed when the last connection to the
// cluster is lost, for however short a time.
func (r *Registry) lost(ctx context.Context) <-chan struct{} {
	gone := make(chan struct{})
	conn := r.client.ActiveConnection()
	go func() {
		if conn.GetState() != connectivity.Ready || conn.WaitForStateChange(ctx, connectivity.Ready) {
			close(gone)
		}
	}()
	return gone
}

// report tells which services changed, each once.
func (r *Registry) report(events []*clientv3.Event, changed func(registry.Event)) {
	told := make(map[string]bool)
	tell := func(name string) {
		if !told[name] {
			told[name] = true
			changed(registry.Event{Name: name})
		}
	}
	for _, e := range events {
		if e.Type == mvccpb.PUT && e.PrevKv != nil && bytes.Equal(e.Kv.Value, e.PrevKv.Value) {
			continue // a renewal
		}
		at := strings.TrimPrefix(string(e.Kv.Key), r.prefix)
		if e.Type == mvccpb.PUT {
			if now := r.decode(at, e.Kv); now != nil {
				tell(now.service.Name)
			}
		}
		switch {
		case e.PrevKv != nil:
			if before, err := decode(at, e.PrevKv.Value); err == nil {
				tell(before.service.Name)
			}
		case e.Type == mvccpb.DELETE: // what it was has been compacted
			tell("")
		}
	}
}
