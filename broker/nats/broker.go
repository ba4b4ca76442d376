// Package nats is the broker on NATS with JetStream: a topic is a subject
// under a fixed prefix, a stream takes what is published there. It works on
// the embedded engine and on any NATS server with JetStream. It owns the
// stream and the form of messages, not the connection.
//
// Publishing is acknowledged by the stream. Live subscriptions receive what is
// published while they are connected, and nothing older. A durable queue is a
// durable consumer: the stream keeps a message until all whose subject matches
// have acknowledged it, and one that nobody wants not at all.
package nats

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

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
	// MaxBytes bounds what the stream keeps, in bytes on disk; 0 leaves the
	// limit of a stream that is there, and gives none to a new one.
	MaxBytes int64
	// Replicas is how many servers of a cluster keep what is stored. 0 leaves
	// a stream that is there as it is; a new one is kept by three servers, or
	// by one where the server is alone or the cluster smaller.
	Replicas int
	// GoMicro makes messages look as go-micro's nats broker has them, so that
	// its services are publishers and subscribers, too. Without JetStream the
	// broker is live then.
	GoMicro bool
	// Full, when set, is asked before messages are published and says why
	// there is no room for them.
	Full func() error
	// Log is told of lost and odd messages; nil is [slog.Default].
	Log *slog.Logger
}

// Broker implements [broker.Broker]. It is safe for concurrent use.
type Broker struct {
	o    Options
	conn *gonats.Conn
	js   jetstream.JetStream
	link *link.Link

	published publishedIDs
	large     chan struct{} // a token for each member that asks for a large message, see large.go
	covered   covered
	live      bool // the server has no JetStream

	mu            sync.Mutex
	states        jetstream.Stream           // nil until it was looked up
	members       map[*member]struct{}       // nil once closed
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
	b := &Broker{o: o, conn: conn, js: js, link: link.New(conn), large: make(chan struct{}, maxLarge), subscriptions: make(map[*subscription]struct{}), members: make(map[*member]struct{})}
	_, err = link.Again(ctx, b.link, b.open)
	if o.GoMicro && (errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, gonats.ErrNoResponders)) {
		b.live, err = true, nil
		o.Log.Info("this NATS server has no JetStream: messages are live, nothing is kept")
	}
	if err != nil {
		b.link.Close()
		return nil, fmt.Errorf("nats broker: %w", err)
	}
	return b, nil
}

// Publish implements [broker.Broker]. When the connection breaks before the
// stream has answered the error is [link.ErrLost]: the message may have been
// taken, so it is for the caller to say whether it may be published again.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	return b.publish(ctx, topic, "", m)
}

// publish is Publish for a message that has an ID, or "" for none.
func (b *Broker) publish(ctx context.Context, topic, id string, m broker.Message) error {
	if err := b.mayPublish(topic); err != nil {
		return err
	}
	msg, size, err := b.message(topic, id, m)
	if err != nil {
		return err
	}
	_, err = link.Once(ctx, b.link, func(ctx context.Context) (struct{}, error) {
		err := b.send(ctx, msg)
		if errors.Is(err, jetstream.ErrNoStreamResponse) { // somebody has removed it
			if _, openErr := b.open(ctx); openErr != nil {
				return struct{}{}, cmp.Or(b.storesNothing(ctx), openErr)
			}
			b.forget(msg.Subject)
			err = b.send(ctx, msg)
		}
		return struct{}{}, err
	})
	return published(err, size)
}

// mayPublish says why nothing can be published now.
func (b *Broker) mayPublish(topic string) error {
	switch {
	case topic == "":
		return errors.New("publish: the topic is empty")
	case b.isClosed():
		return broker.ErrClosed
	}
	if b.o.Full != nil {
		if err := b.o.Full(); err != nil {
			return fmt.Errorf("publish: %w: %w", broker.ErrFull, err)
		}
	}
	return nil
}

// message makes a message of NATS and returns its size.
func (b *Broker) message(topic, id string, m broker.Message) (msg *gonats.Msg, size int, err error) {
	subject, whole := b.encode(topic, false)
	msg = &gonats.Msg{Subject: subject}
	if size, err = b.fill(msg, m); err != nil {
		return nil, 0, fmt.Errorf("publish: %w", err)
	}
	if !whole {
		msg.Header[topicField] = []string{url.QueryEscape(topic)}
	}
	if id != "" {
		// The stream knows IDs alone, and takes not every text for one.
		msg.Header[jetstream.MsgIDHeader] = []string{token.Digest(topic + "\x00" + id)}
	}
	if size > MaxMessage {
		return nil, 0, fmt.Errorf("publish: %w: %d bytes with its header, at most %d", broker.ErrTooLarge, size, MaxMessage)
	}
	return msg, size, nil
}

// published is the error of a message of that size as a caller gets it.
func published(err error, size int) error {
	switch {
	case overLimit(err):
		return fmt.Errorf("publish: %w: %d bytes with its header: %w", broker.ErrTooLarge, size, err)
	case errors.Is(err, broker.ErrFull):
		return fmt.Errorf("publish: %w", err)
	case fullError(err):
		return fmt.Errorf("publish: %w: %w", broker.ErrFull, err)
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

// fill puts a message into one of NATS and returns its size. The caller has its
// own back when Publish returns, but a connection that is stuck may read this
// one later.
func (b *Broker) fill(msg *gonats.Msg, m broker.Message) (size int, err error) {
	msg.Header = gonats.Header{}
	if b.o.GoMicro {
		msg.Data, err = encodeEnvelope(msg.Subject, m)
		return len(msg.Data), err
	}
	msg.Data = bytes.Clone(m.Body)
	if len(m.Header) == 0 {
		return len(m.Body), nil
	}
	field := encodeHeader(m.Header)
	msg.Header[headerField] = []string{field}
	return len(m.Body) + len(field), nil
}

// send publishes once and waits for the stream to have taken the message; on a
// server without streams, for the server.
func (b *Broker) send(ctx context.Context, msg *gonats.Msg) error {
	if b.live {
		if err := b.conn.PublishMsg(msg); err != nil {
			return err
		}
		return b.conn.FlushWithContext(ctx)
	}
	// A stream of somebody else's that has the subject is as good a witness,
	// but nothing of ours is kept there.
	if err := b.cover(ctx, msg.Subject); err != nil && !overlap(err) {
		return err
	}
	waiting, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	doubt := time.AfterFunc(doubtAfter, func() {
		b.forget(msg.Subject) // somebody may have taken it out of the stream
		if err := b.storesNothing(waiting); err != nil {
			giveUp(err)
		}
	})
	defer doubt.Stop()
	ack, err := b.js.PublishMsg(waiting, msg, jetstream.WithRetryAttempts(0))
	if why := context.Cause(waiting); err != nil && errors.Is(why, broker.ErrFull) {
		return why
	}
	if err == nil && ack.Stream != b.o.Stream && !b.o.GoMicro {
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
	all, members := b.subscriptions, b.members
	b.subscriptions, b.members = nil, nil
	b.mu.Unlock()
	for s := range all {
		s.end()
	}
	b.leaveAll(members)
	b.link.Close()
	return nil
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.subscriptions == nil
}
