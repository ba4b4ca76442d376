// Package nats is the broker on NATS with JetStream: a topic is a subject
// under a fixed prefix, a stream takes what is published there. It works on
// the embedded engine and on any NATS server with JetStream. It owns the
// stream and the form of messages, not the connection.
//
// Publishing is acknowledged by the stream. Subscriptions are live: they
// receive what is published while they are connected, and nothing older. The
// stream keeps a message only as long as a consumer of its own is interested.
package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	gonats "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engine/token"
)

const (
	// DefaultPrefix is the first token of every subject when Options leave it open.
	DefaultPrefix = "micro-topic"
	// DefaultStream is the stream's name when Options leave it open.
	DefaultStream = "micro-messages"
	// MaxMessage is the largest message in bytes, body and encoded header
	// together: a stream on disk holds records of 32 MiB at most, and live
	// subscribers must not receive what the publisher is told was refused.
	MaxMessage = 32<<20 - 4<<10
)

// Options refine a broker. The zero value is usable.
type Options struct {
	// Prefix stands in front of every topic: one token of letters, digits, -
	// and _. No topic leads out of it. "" is [DefaultPrefix].
	Prefix string
	// Stream is the name of the stream that takes what is published under
	// Prefix. It is created when it is not there. "" is [DefaultStream].
	Stream string
	// Log is told of lost and odd messages; nil is [slog.Default].
	Log *slog.Logger
}

// Broker implements [broker.Broker]. It is safe for concurrent use.
type Broker struct {
	o    Options
	conn *gonats.Conn
	js   jetstream.JetStream
	link *link.Link

	mu            sync.Mutex
	subscriptions map[*subscription]struct{} // nil once closed
}

// New opens the stream and creates it if need be. The connection stays the
// caller's; it should keep nothing to send while it is down
// ([gonats.ReconnectBufSize] of -1).
func New(ctx context.Context, conn *gonats.Conn, o Options) (*Broker, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.Stream == "" {
		o.Stream = DefaultStream
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if token.Encode(o.Prefix) != o.Prefix {
		return nil, fmt.Errorf("nats broker: prefix %q: expected letters, digits, - and _", o.Prefix)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, fmt.Errorf("nats broker: %w", err)
	}
	b := &Broker{o: o, conn: conn, js: js, link: link.New(conn), subscriptions: make(map[*subscription]struct{})}
	if _, err := link.Again(ctx, b.link, b.open); err != nil {
		b.link.Close()
		return nil, fmt.Errorf("nats broker: %w", err)
	}
	return b, nil
}

// open makes sure that the stream is there.
func (b *Broker) open(ctx context.Context) (struct{}, error) {
	_, err := b.js.Stream(ctx, b.o.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name:        b.o.Stream,
			Description: "messages published with micro",
			Subjects:    []string{b.o.Prefix + ".>"},
			Retention:   jetstream.InterestPolicy,
			Storage:     jetstream.FileStorage,
		})
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another process was quicker
		err = nil
	}
	if err != nil {
		return struct{}{}, fmt.Errorf("stream %s: %w", b.o.Stream, err)
	}
	return struct{}{}, nil
}

// subject is where a topic's messages travel.
func (b *Broker) subject(topic string) string { return b.o.Prefix + "." + token.Encode(topic) }

// Publish implements [broker.Broker]. When the connection breaks before the
// stream has answered the error is [link.ErrLost]: the message may have been
// taken, so it is for the caller to say whether it may be published again.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	switch {
	case topic == "":
		return errors.New("publish: the topic is empty")
	case b.isClosed():
		return broker.ErrClosed
	}
	msg := &gonats.Msg{Subject: b.subject(topic), Header: gonats.Header{}}
	size := len(m.Body)
	if len(m.Header) > 0 {
		field := encodeHeader(m.Header)
		size += len(field)
		msg.Header[headerField] = []string{field}
	}
	if size > MaxMessage {
		return fmt.Errorf("publish: %w: %d bytes with its header, at most %d", broker.ErrTooLarge, size, MaxMessage)
	}
	// The caller has its message back when Publish returns, but a connection
	// that is stuck may read it later.
	msg.Data = bytes.Clone(m.Body)
	_, err := link.Once(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		err := b.send(ctx, msg)
		if errors.Is(err, jetstream.ErrNoStreamResponse) { // somebody has removed it
			if _, err := b.open(ctx); err != nil {
				return struct{}{}, err
			}
			err = b.send(ctx, msg)
		}
		return struct{}{}, err
	})
	switch {
	case overLimit(err):
		return fmt.Errorf("publish: %w: %d bytes with its header: %w", broker.ErrTooLarge, size, err)
	case err != nil:
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// overLimit tells the errors of a server, or a stream, with a lower limit.
func overLimit(err error) bool {
	const messageTooLarge, storeFailed = 10054, 10077
	var api *jetstream.APIError
	switch {
	case errors.Is(err, gonats.ErrMaxPayload):
		return true
	case !errors.As(err, &api):
		return false
	}
	return api.ErrorCode == messageTooLarge || api.ErrorCode == storeFailed && strings.Contains(api.Description, "too large")
}

// send publishes once and waits for the stream to have taken the message.
func (b *Broker) send(ctx context.Context, msg *gonats.Msg) error {
	ack, err := b.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	if err == nil && ack.Stream != b.o.Stream {
		return fmt.Errorf("stream %s took the message, not %s", ack.Stream, b.o.Stream)
	}
	return err
}

// Ping implements [broker.Pinger].
func (b *Broker) Ping(ctx context.Context) error {
	if b.isClosed() {
		return broker.ErrClosed
	}
	if err := link.Ping(ctx, b.link); err != nil {
		return fmt.Errorf("the broker's NATS server cannot be reached: %w", err)
	}
	return nil
}

// Close ends all subscriptions and waits for their handlers; the connection
// stays open.
func (b *Broker) Close() error {
	b.mu.Lock()
	all := b.subscriptions
	b.subscriptions = nil
	b.mu.Unlock()
	for s := range all {
		s.end()
	}
	b.link.Close()
	return nil
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subscriptions == nil
}
