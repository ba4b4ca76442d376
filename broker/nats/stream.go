package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/sleep"
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
	err := b.adapt(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = b.create(ctx, want)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was quicker
			err = nil
		}
	}
	if err != nil {
		return struct{}{}, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	return struct{}{}, nil
}

// adapt changes what this broker insists on in a stream that is there. A limit
// that was not asked for is left as it is: somebody else may have set it.
func (b *Broker) adapt(ctx context.Context) error {
	return b.amend(ctx, func(c *jetstream.StreamConfig) bool {
		have := *c
		c.Discard = jetstream.DiscardNew // what is there stays
		if b.o.MaxBytes > 0 {
			c.MaxBytes = b.o.MaxBytes
		}
		if b.o.Replicas > 0 {
			c.Replicas = b.o.Replicas
		}
		return c.Discard != have.Discard || c.MaxBytes != have.MaxBytes || c.Replicas != have.Replicas
	})
}

// create makes a stream with the replicas that were asked for, or with as many
// as a cluster needs to go on without one of its servers.
func (b *Broker) create(ctx context.Context, want jetstream.StreamConfig) error {
	const enough = 3
	want.Replicas = cmp.Or(b.o.Replicas, enough)
	_, err := b.js.CreateStream(ctx, want)
	if b.o.Replicas == 0 && tooFew(err) {
		want.Replicas = 1
		_, err = b.js.CreateStream(ctx, want)
	}
	return err
}

// tooFew tells the errors of a server that is alone, or of a cluster that has
// fewer servers than the replicas asked for.
func tooFew(err error) bool {
	const noPeers, notClustered = 10005, 10074
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == noPeers || api.ErrorCode == notClustered)
}

// doubtAfter is how long a stream may take to store a message before it is
// asked what the matter is, and how long it is then watched.
const doubtAfter = 2 * time.Second

// storesNothing tells, of a stream that does not answer what is published, an
// error when its server is there and stores nothing: a server that could not
// write to its disk stays silent (nats-server 2.15), or turns JetStream off. One
// that is only slow has stored something after a while. Streams that several
// servers keep may just have lost their leader.
func (b *Broker) storesNothing(ctx context.Context) error {
	var last uint64
	for look := range 2 {
		stream, err := b.js.Stream(ctx, b.o.Stream)
		if errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			return fmt.Errorf("%w: the NATS server has turned JetStream off; its disk may be full or at fault", broker.ErrFull)
		}
		if err != nil || stream.CachedInfo().Config.Replicas > 1 {
			return nil //nolint:nilerr // it is not there: whoever publishes notices
		}
		have := stream.CachedInfo().State.LastSeq
		if look > 0 && have != last {
			return nil
		}
		last = have
		if look == 0 && sleep.For(ctx, doubtAfter) != nil {
			return nil // whoever publishes has given up
		}
	}
	return fmt.Errorf("%w: the stream %s is there, but does not store what is published; its server's disk may be full or at fault", broker.ErrFull, b.o.Stream)
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
		return strings.Contains(api.Description, "maximum bytes") || strings.Contains(api.Description, "maximum messages") ||
			strings.Contains(api.Description, "no space left")
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
	err := b.create(ctx, jetstream.StreamConfig{
		Name:              b.stateStream(),
		Description:       "states of durable queues",
		Subjects:          []string{b.o.Prefix + "-state.>"},
		Storage:           jetstream.FileStorage,
		MaxMsgsPerSubject: 1,
		MaxAge:            stateAge,
		AllowDirect:       true,
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		err = b.adaptState(ctx)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", b.stateStream(), err)
	}
	return nil
}

// adaptState is adapt for the stream of states.
func (b *Broker) adaptState(ctx context.Context) error {
	if b.o.Replicas == 0 {
		return nil
	}
	stream, err := b.js.Stream(ctx, b.stateStream())
	if err != nil {
		return err
	}
	config := stream.CachedInfo().Config
	if config.Replicas == b.o.Replicas {
		return nil
	}
	config.Replicas = b.o.Replicas
	_, err = b.js.UpdateStream(ctx, config)
	return err
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
	m, err := link.Again(ctx, b.link, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return b.lastState(ctx, subject)
	})
	if m == nil {
		return "", time.Time{}, err
	}
	return string(m.Data), m.Time, nil
}

// lastState returns what was stored last under a subject, nil for nothing.
func (b *Broker) lastState(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	stream, err := b.stateHandle(ctx)
	if err != nil {
		return nil, err
	}
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // as said
	}
	return m, err
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
