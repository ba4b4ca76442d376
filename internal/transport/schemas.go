package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

const (
	// schemaTTL is how long a description is used: a server may be replaced by
	// another one of the same version.
	schemaTTL = time.Minute
	// schemaRetry is how long a refusal is believed, and one that could not be
	// renewed is used on.
	schemaRetry = 2 * time.Second
	// schemaIdle is how long one that nobody uses is kept, that of a service
	// that is gone among them.
	schemaIdle = 10 * time.Minute
	// maxSchemas bounds how many are kept.
	maxSchemas = 256
)

// schema is what a node said about itself. It does not change.
type schema struct {
	services []string // the list: full names, sorted

	name    string               // or one service: its full name,
	names   []string             // its methods' names in the order of the description,
	methods map[string]described // and the methods; nil when there is no such service
}

// schemaKey says what a schema is about. Nodes of one version share it; nodes
// without a version have their own.
type schemaKey struct {
	service, version, addr string
	symbol                 string // a gRPC service's full name; "" is the list of them
}

func keyOf(n *discovery.Node, service, symbol string) schemaKey {
	key := schemaKey{service: service, version: n.Version, symbol: symbol}
	if n.Version == "" {
		key.addr = n.Addr
	}
	return key
}

// schemas keeps what nodes said about themselves. The zero value is empty; it
// is safe for concurrent use.
type schemas struct {
	mu      sync.Mutex
	entries map[schemaKey]*schemaEntry
	sweep   *time.Timer
	closed  bool
}

type schemaEntry struct {
	done chan struct{} // closed when what follows is there
	*schema
	err    error
	loaded time.Time

	until, used time.Time // guarded by schemas.mu
	old         *schemaEntry
}

func (e *schemaEntry) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// get returns the schema of key, which load asks for when it is not known or
// too old. Callers at the same time share one question. A refusal
// (*httpmsg.Error) is remembered for a moment, a failure is not.
func (s *schemas) get(ctx context.Context, key schemaKey, load func() (*schema, error)) (*schema, error) {
	for {
		e, mine := s.enter(key)
		if mine {
			return s.fill(key, e, load)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the description of service %s: %w", key.service, ctx.Err())
		}
		if !errors.Is(e.err, context.Canceled) && !errors.Is(e.err, context.DeadlineExceeded) {
			return e.schema, e.err
		} // who asked had no time left: that is no answer for others
	}
}

// enter returns the entry of key; mine means that the caller has to fill it.
func (s *schemas) enter(key schemaKey) (e *schemaEntry, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	e = s.entries[key]
	if e != nil && (!e.ended() || now.Before(e.until)) {
		e.used = now
		return e, false
	}
	if s.entries == nil {
		s.entries = map[schemaKey]*schemaEntry{}
	}
	if e == nil && len(s.entries) >= maxSchemas {
		s.evict()
	}
	mineEntry := &schemaEntry{done: make(chan struct{}), used: now}
	if e != nil && e.err == nil {
		mineEntry.old = e
	}
	s.entries[key] = mineEntry
	if s.sweep == nil && !s.closed {
		s.sweep = time.AfterFunc(schemaIdle, s.forgetIdle)
	}
	return mineEntry, true
}

// fill loads an entry. One that cannot be renewed is used for a while longer.
func (s *schemas) fill(key schemaKey, e *schemaEntry, load func() (*schema, error)) (*schema, error) {
	e.err = errors.New("reading the description broke off") // should load panic
	defer close(e.done)
	e.schema, e.err = load()
	e.loaded = time.Now()

	s.mu.Lock()
	defer s.mu.Unlock()
	refusal := (*httpmsg.Error)(nil)
	old := e.old
	e.old = nil
	switch {
	case e.err == nil:
		e.until = e.loaded.Add(schemaTTL)
	case old != nil && !errors.As(e.err, &refusal):
		e.schema, e.err, e.loaded = old.schema, nil, old.loaded
		e.until = time.Now().Add(schemaRetry)
	case errors.As(e.err, &refusal):
		e.until = e.loaded.Add(schemaRetry)
	case s.entries[key] == e:
		delete(s.entries, key)
	}
	return e.schema, e.err
}

// renew drops what is known of a service's version, unless it is quite new,
// and reports whether it did: after a refusal (err) of what does not fit it,
// a fresh look may be another answer.
func (s *schemas) renew(n *discovery.Node, service string, err error) bool {
	if refusal := (*httpmsg.Error)(nil); !isStandard(n) || !errors.As(err, &refusal) {
		return false
	}
	of := keyOf(n, service, "")
	s.mu.Lock()
	defer s.mu.Unlock()
	dropped := false
	for key, e := range s.entries {
		if key.symbol = ""; key == of && e.ended() && e.err == nil && time.Since(e.loaded) > schemaRetry {
			e.until = time.Time{}
			dropped = true
		}
	}
	return dropped
}

// evict makes room; mu is held.
func (s *schemas) evict() {
	var oldest schemaKey
	var at time.Time
	for key, e := range s.entries {
		if e.ended() && (at.IsZero() || e.used.Before(at)) {
			oldest, at = key, e.used
		}
	}
	if !at.IsZero() {
		delete(s.entries, oldest)
	}
}

// forgetIdle drops what nobody used for long, and comes again while there is
// something.
func (s *schemas) forgetIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, e := range s.entries {
		if e.ended() && time.Since(e.used) >= schemaIdle {
			delete(s.entries, key)
		}
	}
	s.sweep = nil
	if len(s.entries) > 0 && !s.closed {
		s.sweep = time.AfterFunc(schemaIdle/2, s.forgetIdle)
	}
}

// close forgets everything.
func (s *schemas) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.sweep != nil {
		s.sweep.Stop()
	}
	clear(s.entries)
}
