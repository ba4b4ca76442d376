// Package nats is the registry on a JetStream key-value bucket: a key a node,
// its deadline in its value. It works on the embedded engine and on any NATS
// server with JetStream. It owns the bucket's layout, not the connection.
//
// Deadlines are absolute times, so the clocks of the machines that share a
// server must agree to well within a registration's TTL. That a clock is set
// does no harm to what is watched, see clock.go.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engine/token"
	"github.com/micro/sidecar/registry"
)

const (
	// DefaultBucket is the bucket's name when Options leave it open.
	DefaultBucket = "micro-registry"
	// ttlSlack is how long the server keeps an entry past its deadline; the
	// deadline alone says what is registered.
	ttlSlack = 5 * time.Second
	// markerTTL is how long the server keeps the mark of a removed entry.
	markerTTL = time.Minute
)

// Options refine a registry. The zero value is usable.
type Options struct {
	// Bucket is the name of the key-value bucket, made of letters, digits, -
	// and _; "" is [DefaultBucket]. It is created when it is not there.
	Bucket string
	// Replicas is how many servers of a cluster keep a bucket that is created
	// here; 0 is one.
	Replicas int
	// Full, when set, is asked before something is written and says why there
	// is no room for it.
	Full func() error
	// Log is told of entries that make no sense; nil is [slog.Default].
	Log *slog.Logger
}

// Registry implements [registry.Registry]. It is safe for concurrent use.
type Registry struct {
	js       jetstream.JetStream
	link     *link.Link
	bucket   string
	replicas int
	full     func() error // or nil
	store    atomic.Pointer[store]
	seen     atomic.Uint64 // the latest revision that was written or read here
	odd      *complain.Log
	lives    lifetimes
}

// store is the bucket as it was found.
type store struct {
	jetstream.KeyValue
	expires    bool      // the server removes entries with a TTL
	created    time.Time // tells it from another of that name
	direct     bool      // it answers direct gets
	replicated bool      // by servers that may lag behind the one that takes the writes
}

// New opens the bucket and creates it if need be. The connection stays the
// caller's; it should keep nothing to send while it is down
// ([gonats.ReconnectBufSize] of -1).
func New(ctx context.Context, conn *gonats.Conn, o Options) (*Registry, error) {
	if o.Bucket == "" {
		o.Bucket = DefaultBucket
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("nats registry: %w", err)
	}
	r := &Registry{js: js, link: link.New(conn), bucket: o.Bucket, replicas: o.Replicas, full: o.Full, odd: complain.New(o.Log)}
	if _, err := link.Again(ctx, r.link, r.open); err != nil {
		r.link.Close()
		return nil, fmt.Errorf("nats registry: %w", err)
	}
	return r, nil
}

// Close lets go of the connection, which stays open.
func (r *Registry) Close() error {
	r.link.Close()
	return nil
}

// open finds or creates the bucket.
func (r *Registry) open(ctx context.Context) (*store, error) {
	kv, err := r.js.KeyValue(ctx, r.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = r.create(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", r.bucket, err)
	}
	status, err := kv.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", r.bucket, err)
	}
	s := &store{KeyValue: kv, expires: status.LimitMarkerTTL() > 0}
	if full, ok := status.(*jetstream.KeyValueBucketStatus); ok {
		info := full.StreamInfo()
		s.created = info.Created
		s.direct = info.Config.AllowDirect && info.Config.Mirror == nil
		s.replicated = info.Config.Replicas > 1
	}
	if last := r.store.Load(); last == nil || !last.created.Equal(s.created) {
		r.seen.Store(0) // a bucket counts from its beginning
	}
	r.store.Store(s)
	return s, nil
}

func (r *Registry) create(ctx context.Context) (jetstream.KeyValue, error) {
	config := jetstream.KeyValueConfig{
		Bucket:         r.bucket,
		Description:    "services registered with micro",
		Storage:        jetstream.FileStorage,
		History:        1,
		Replicas:       r.replicas,
		LimitMarkerTTL: markerTTL,
	}
	kv, err := r.js.CreateKeyValue(ctx, config)
	if errors.Is(err, jetstream.ErrLimitMarkerTTLNotSupported) { // a server before 2.11
		config.LimitMarkerTTL = 0
		kv, err = r.js.CreateKeyValue(ctx, config)
	}
	if errors.Is(err, jetstream.ErrBucketExists) { // another process was quicker
		return r.js.KeyValue(ctx, r.bucket)
	}
	return kv, err
}

// call does what may be done twice, on a bucket that is created again if
// somebody has removed it.
func call[T any](ctx context.Context, r *Registry, fn func(context.Context, *store) (T, error)) (T, error) {
	return link.Again(ctx, r.link, func(ctx context.Context) (T, error) {
		v, err := fn(ctx, r.store.Load())
		if !missing(err) {
			return v, err
		}
		s, err := r.open(ctx)
		if err != nil {
			return v, err
		}
		return fn(ctx, s)
	})
}

// missing tells errors that mean the bucket is not there any more.
func missing(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, gonats.ErrStreamNotFound)
}

// Register implements [registry.Registry].
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if err := check(s); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	// A call that was given up may still be writing: it has its own copy.
	deadline := time.Time{}
	if ttl > 0 {
		deadline = time.Now().Add(ttl)
	}
	messages := make([]*gonats.Msg, len(s.Nodes))
	for i, n := range s.Nodes {
		value, err := encode(s, n, deadline)
		if err != nil {
			return fmt.Errorf("register %s: %w", s.Name, err)
		}
		messages[i] = &gonats.Msg{Subject: "$KV." + r.bucket + "." + key(s.Name, n.ID), Data: value}
	}
	_, err := call(ctx, r, func(ctx context.Context, b *store) (struct{}, error) {
		for _, m := range messages {
			if err := r.put(ctx, b, *m, ttl); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	return nil
}

// put stores one registration. It is still the caller's: a call that was
// given up may be writing it.
func (r *Registry) put(ctx context.Context, b *store, m gonats.Msg, ttl time.Duration) error {
	m.Header = gonats.Header{}
	if ttl > 0 {
		ttl += ttlSlack
	}
	return r.publish(ctx, b, &m, ttl)
}

// publish stores one message; unlike the bucket's own methods it can give any
// a TTL, and knows the revision. The server counts seconds.
func (r *Registry) publish(ctx context.Context, b *store, m *gonats.Msg, ttl time.Duration) error {
	if r.full != nil {
		if err := r.full(); err != nil {
			return err
		}
	}
	options := []jetstream.PublishOpt{jetstream.WithRetryAttempts(1)}
	if ttl > 0 && b.expires {
		options = append(options, jetstream.WithMsgTTL((ttl + time.Second - 1).Truncate(time.Second)))
	}
	ack, err := r.js.PublishMsg(ctx, m, options...)
	if err == nil {
		r.saw(ack.Sequence)
	}
	return err
}

// saw notes a revision: no later read shall be older.
func (r *Registry) saw(revision uint64) {
	for {
		last := r.seen.Load()
		if revision <= last || r.seen.CompareAndSwap(last, revision) {
			return
		}
	}
}

// jetstreamName reports whether a bucket can have the name.
func jetstreamName(name string) bool { return name != "" && token.Encode(name) == name }

func check(s registry.Service) error {
	if s.Name == "" {
		return errors.New("the service has no name")
	}
	for _, n := range s.Nodes {
		if n.ID == "" {
			return errors.New("a node has no id")
		}
	}
	return nil
}

// Deregister implements [registry.Registry].
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	if err := check(s); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	keys := make([]string, len(s.Nodes))
	for i, n := range s.Nodes {
		keys[i] = key(s.Name, n.ID)
	}
	_, err := call(ctx, r, func(ctx context.Context, b *store) (struct{}, error) {
		for _, k := range keys {
			if err := r.publish(ctx, b, purge(r.bucket, k), markerTTL); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, nil
	})
	if err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	return nil
}

// purge is the message that removes a key.
func purge(bucket, key string) *gonats.Msg {
	return &gonats.Msg{
		Subject: "$KV." + bucket + "." + key,
		Header:  gonats.Header{"KV-Operation": {"PURGE"}, jetstream.MsgRollup: {jetstream.MsgRollupSubject}},
	}
}

// Get implements [registry.Registry]. It reads the keys of that service alone.
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	if name == "" {
		return nil, fmt.Errorf("get %q: %w", name, registry.ErrNotFound)
	}
	entries, err := r.read(ctx, token.Encode(name)+".*")
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	services := group(entries, time.Now())
	if len(services) == 0 {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return services, nil
}

// List implements [registry.Registry].
func (r *Registry) List(ctx context.Context) ([]string, error) {
	entries, err := r.read(ctx, ">")
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	now, names := time.Now(), make(map[string]struct{})
	for _, e := range entries {
		if !e.expired(now) {
			names[e.service.Name] = struct{}{}
		}
	}
	return slices.AppendSeq(make([]string, 0, len(names)), slices.Values(slices.Sorted(maps.Keys(names)))), nil
}

// Ping implements [registry.Pinger].
func (r *Registry) Ping(ctx context.Context) error {
	if err := link.Ping(ctx, r.link); err != nil {
		return fmt.Errorf("the registry's NATS server cannot be reached: %w", err)
	}
	return nil
}
