package nats

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Deadlines in the bucket are times of day, and a clock may be set: the one
// here, and the server's, by which it collects what is left. What a watch has
// heard of lives on a clock that nobody sets, and what the server gets wrong is
// put right where a watch sees it.

// repairTimeout bounds one repair.
const repairTimeout = time.Second

// setBy is how much a clock must have been set for anything to be repaired.
const setBy = time.Second

// steady turns a time of day into one that moves with no setting of the clock
// from now on.
func steady(at time.Time) time.Time {
	now := time.Now()
	return now.Add(at.Sub(now)) // at has no reading of that clock, now has
}

// lifetimes are the deadlines of what watches have heard of. It is safe for
// concurrent use.
type lifetimes struct {
	mu    sync.Mutex
	known map[string]lifetime // by key
}

// lifetime is one of a record. A bucket that was lost and made anew counts its
// revisions from 1: the same number is not the same record.
type lifetime struct {
	revision          uint64
	written, deadline time.Time
}

func (l lifetime) of(e *entry) bool { return l.revision == e.revision && l.written.Equal(e.written) }

// learn notes an entry that a watch has told, or gives it the deadline that was
// noted for that revision.
func (l *lifetimes) learn(e *entry) {
	if e.deadline.IsZero() {
		l.forget(e.key)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch have, ok := l.known[e.key]; {
	case ok && have.of(e):
		e.deadline = have.deadline
	case !ok || have.revision < e.revision || have.written.Before(e.written):
		if l.known == nil {
			l.known = map[string]lifetime{}
		}
		l.known[e.key] = lifetime{e.revision, e.written, e.deadline}
	}
}

// correct gives an entry the deadline that was noted for its revision, if one was.
func (l *lifetimes) correct(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have, ok := l.known[e.key]; ok && have.of(e) {
		e.deadline = have.deadline
	}
}

func (l *lifetimes) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.known, key)
}

// keep forgets all that a watch did not find when it began.
func (l *lifetimes) keep(found map[string]*entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.known {
		if found[key] == nil {
			delete(l.known, key)
		}
	}
}

// early reports whether the time of e's deadline is past, and yet it is not
// over: the clock was set forward.
func (e *entry) early(now time.Time) bool {
	return !e.deadline.IsZero() && e.deadline.Sub(now) > setBy && now.Sub(e.written) > 0
}

// overdue reports whether e is over, and yet the time of its deadline is far:
// the clock was set back.
func (e *entry) overdue(now time.Time) bool { return e.expired(now) && e.written.Sub(now) > setBy }

// restore puts back an entry that the server has collected before its time. It
// reports false when the entry was removed by somebody.
func (r *Registry) restore(ctx context.Context, b *store, e *entry) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	subject := "$KV." + r.bucket + "." + e.key
	stream, err := r.js.Stream(ctx, "KV_"+r.bucket)
	if err != nil {
		return false, err
	}
	last, err := stream.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return false, err
	}
	switch {
	case last.Header.Get("KV-Operation") != "":
		return false, nil
	case last.Header.Get(jetstream.MarkerReasonHeader) == "":
		return true, nil // it is there again
	}
	rest := time.Until(e.deadline)
	value, err := encode(e.service, e.service.Nodes[0], time.Now().Add(rest))
	if err != nil {
		return false, err
	}
	return true, r.repair(ctx, b, &gonats.Msg{Subject: subject, Data: value}, last.Sequence, rest+ttlSlack)
}

// retire removes an entry that is over from a server that would keep it.
func (r *Registry) retire(ctx context.Context, b *store, e *entry) error {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	return r.repair(ctx, b, purge(r.bucket, e.key), e.revision, markerTTL)
}

// repair stores a message unless there is a newer one than is said: another
// watch does the same, or somebody has registered again.
func (r *Registry) repair(ctx context.Context, b *store, m *gonats.Msg, after uint64, ttl time.Duration) error {
	if m.Header == nil {
		m.Header = gonats.Header{}
	}
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(after, 10))
	err := r.publish(ctx, b, m, ttl)
	if refusal, ok := isRefusal(err); ok && refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return nil
	}
	if err != nil {
		return fmt.Errorf("repair %s: %w", m.Subject, err)
	}
	return nil
}
