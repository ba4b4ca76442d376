package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/registry"
)

// client is what the commands work with: [direct] talks to the engines itself,
// [proxied] to a sidecar.
type client interface {
	List(ctx context.Context) ([]string, error)
	Get(ctx context.Context, name string) ([]registry.Service, error)
	Register(ctx context.Context, s registry.Service, ttl time.Duration) error
	Deregister(ctx context.Context, s registry.Service) error
	// Watch calls live once changes will be seen, then emit for each, until
	// ctx ends (nil) or the watch breaks.
	Watch(ctx context.Context, live func(), emit func(discovery.Change) error) error
	Call(ctx context.Context, c call) (json.RawMessage, error)
	// Stream makes an RPC of any number of requests, io.EOF after the last, and
	// calls emit with each answer, until the RPC or ctx ends. requests may be
	// asked for a moment longer.
	Stream(ctx context.Context, c call, requests func() ([]byte, error), emit func([]byte) error) error
	Publish(ctx context.Context, topic string, m broker.Message, o publishing) error
	// Subscribe calls live once it is, then emit for each message, until ctx
	// ends (nil) or the subscription breaks. With ack a message is acknowledged
	// when emit has returned without an error.
	Subscribe(ctx context.Context, s subscription, live func(), emit func(received) error) error
	queueClient
	Close() error
}

// publishing says how a message is published.
type publishing struct {
	id    string        // "" without
	delay time.Duration // 0: at once
}

// call is one RPC.
type call struct {
	service string
	method  string
	address string // "host:port" of the one node to call, "" for any
	request json.RawMessage
	timeout time.Duration
}

// subscription is what to subscribe to.
type subscription struct {
	topic, queue string
	ack          bool // the queue is durable
}

// received is a message as GET /broker sends it.
type received struct {
	ID      string `json:"Id,omitempty"` // with ack
	Header  map[string]string
	Body    []byte
	Attempt int    `json:",omitempty"` // with ack
	Topic   string `json:",omitempty"` // when a pattern was subscribed to
}

// with opens a client, runs f with it and closes it again. messaging tells
// whether f needs the broker.
func (i *invocation) with(ctx context.Context, messaging bool, f func(client) error) (err error) {
	shown, err := i.cfg.showing(i.given, i.env)
	if err != nil {
		return err
	}
	c, err := i.open(ctx, messaging, shown)
	if err != nil {
		return fail(plain(ctx, err, i.cfg.Sidecar.RequestTimeout))
	}
	defer func() { err = fail(errors.Join(err, c.Close())) }()
	return plain(ctx, f(c), i.cfg.Sidecar.RequestTimeout)
}

// withTimeout is with for a command that asks one thing: all of f has
// --client_request_timeout.
func (i *invocation) withTimeout(ctx context.Context, messaging bool, f func(context.Context, client) error) error {
	return i.with(ctx, messaging, func(c client) error {
		ctx, cancel := context.WithTimeout(ctx, i.cfg.Sidecar.RequestTimeout)
		defer cancel()
		return f(ctx, c)
	})
}

// open makes the client that the settings ask for.
func (i *invocation) open(ctx context.Context, messaging bool, shown showing) (client, error) {
	if i.cfg.ProxyAddress != nil {
		return newProxied(i.cfg.ProxyAddress, shown), nil
	}
	return openDirect(ctx, i, messaging)
}

// logger is the command's log: silent unless --log_level was given, because a
// failure is one line.
func (i *invocation) logger(standard *slog.Level) *slog.Logger {
	level := i.cfg.LogLevel
	if level == nil {
		level = standard
	}
	if level == nil {
		return slog.New(slog.DiscardHandler)
	}
	options := &slog.HandlerOptions{Level: *level}
	if i.cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(i.err, options))
	}
	return slog.New(slog.NewTextHandler(i.err, options))
}

// plain puts the errors of a context into words. ctx is the command's own.
func plain(ctx context.Context, err error, timeout time.Duration) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %s: %w", timeout, err)
	}
	return err
}
