package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
)

// stateAge is how long the stream of states remembers.
const stateAge = 30 * 24 * time.Hour

// open makes sure that the stream is there and keeps what it has: when it is
// full the new message is refused, not an old one dropped.
func (b *Broker) open(ctx context.Context) (struct{}, error) {
	want := jetstream.StreamConfig{
		Name:        b.o.Stream,
		Description: "messages published with micro",
		Subjects:    []string{b.o.Prefix + ".>"},
		Retention:   jetstream.InterestPolicy,
		Storage:     jetstream.FileStorage,
		Discard:     jetstream.DiscardNew,
		MaxBytes:    -1,
		Duplicates:  broker.OnceWithin,
	}
	if b.o.MaxBytes > 0 {
		want.MaxBytes = b.o.MaxBytes
	}
	stream, err := b.js.Stream(ctx, b.o.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = b.js.CreateStream(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was quicker
			err = nil
		}
	case err == nil:
		err = b.adapt(ctx, stream.CachedInfo().Config)
	}
	if err != nil {
		return struct{}{}, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	return struct{}{}, nil
}

// adapt changes what this broker insists on in a stream that is there. A limit
// that was not asked for is left as it is: somebody else may have set it.
func (b *Broker) adapt(ctx context.Context, have jetstream.StreamConfig) error {
	want := have
	want.Discard = jetstream.DiscardNew // what is there stays
	if b.o.MaxBytes > 0 {
		want.MaxBytes = b.o.MaxBytes
	}
	if want.Discard == have.Discard && want.MaxBytes == have.MaxBytes {
		return nil
	}
	_, err := b.js.UpdateStream(ctx, want)
	return err
}

// fullError tells the errors of an engine that has no room.
func fullError(err error) bool {
	const (
		accountExceeded, insufficient, storageExceeded = 10002, 10023, 10047
		storeFailed                                    = 10077
	)
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case accountExceeded, insufficient, storageExceeded:
		return true
	case storeFailed:
		return strings.Contains(api.Description, "maximum bytes") || strings.Contains(api.Description, "maximum messages")
	}
	return false
}

// The stream of states holds, a subject each, what NATS does not know of a
// durable queue: when it was seen last, and how often a message was given back
// without counting.

func (b *Broker) stateStream() string { return b.o.Stream + "-state" }

func (b *Broker) seenSubject(consumer string) string {
	return b.o.Prefix + "-state." + consumer + ".seen"
}

func (b *Broker) returnedSubject(consumer, id string) string {
	return b.o.Prefix + "-state." + consumer + ".returned." + id
}

// openState makes sure that the stream of states is there.
func (b *Broker) openState(ctx context.Context) error {
	_, err := b.js.CreateStream(ctx, jetstream.StreamConfig{
		Name:              b.stateStream(),
		Description:       "states of durable queues",
		Subjects:          []string{b.o.Prefix + "-state.>"},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		MaxAge:            stateAge,
		AllowDirect:       true,
	})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("stream %s: %w", b.stateStream(), err)
	}
	return nil
}

// setState stores a value, or returns the error.
func (b *Broker) setState(ctx context.Context, subject, value string) error {
	_, err := link.Again(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		_, err := b.js.PublishMsg(ctx, &gonats.Msg{Subject: subject, Data: []byte(value)}, jetstream.WithRetryAttempts(0))
		return struct{}{}, err
	})
	return err
}

// state reads a value and when it was stored; "" when there is none.
func (b *Broker) state(ctx context.Context, subject string) (value string, at time.Time, err error) {
	type read struct {
		value string
		at    time.Time
	}
	r, err := link.Again(ctx, b.link, func(ctx context.Context) (read, error) {
		stream, err := b.stateHandle(ctx)
		if err != nil {
			return read{}, err
		}
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return read{}, nil
		}
		if err != nil {
			return read{}, err
		}
		return read{string(m.Data), m.Time}, nil
	})
	return r.value, r.at, err
}

// stateHandle returns the stream of states; it is looked up once.
func (b *Broker) stateHandle(ctx context.Context) (jetstream.Stream, error) {
	b.mu.Lock()
	have := b.states
	b.mu.Unlock()
	if have != nil {
		return have, nil
	}
	stream, err := b.js.Stream(ctx, b.stateStream())
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.states = stream
	return stream, nil
}
