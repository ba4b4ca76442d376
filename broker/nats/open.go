package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/natsconn"
)

// External is a broker on a NATS server that somebody else runs, with a
// connection of its own.
type External struct {
	*Broker
	conn *natsconn.Conn
}

var (
	_ broker.Broker = (*External)(nil)
	_ broker.Pinger = (*External)(nil)
)

// Open connects to the server at u, see [natsconn.Parse], and speaks as
// go-micro does. It waits for the server until ctx ends, at most
// [link.Patience].
func Open(ctx context.Context, u *url.URL, o Options) (*External, error) {
	config, err := configure(u)
	if err != nil {
		return nil, fmt.Errorf("open nats broker: %w", err)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	conn, err := config.Connect(o.Log)
	if err != nil {
		return nil, fmt.Errorf("open nats broker: %w", err)
	}
	o.GoMicro = true
	b, err := New(ctx, conn.Conn, o)
	if err != nil {
		err = conn.Explain(err)
		conn.Close()
		return nil, err
	}
	return &External{Broker: b, conn: conn}, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, err := configure(u)
	return err
}

func configure(u *url.URL) (*natsconn.Config, error) {
	p := engineurl.Query(u)
	config, err := natsconn.Parse(u, p)
	if err != nil {
		return nil, err
	}
	for _, registrys := range []string{"bucket", "layout", "replicas"} {
		p.String(registrys, "") // one address may be that of both
	}
	return config, p.Err()
}

// Close ends all subscriptions and the connection.
func (e *External) Close() error {
	err := e.Broker.Close()
	e.conn.Close()
	return err
}

// Ping implements [broker.Pinger].
func (e *External) Ping(ctx context.Context) error { return e.conn.Explain(e.Broker.Ping(ctx)) }

// noStreams is the error of durable messaging on a server without JetStream.
func noStreams() error {
	return fmt.Errorf("this NATS server has no JetStream, so it keeps no messages: %w", errors.ErrUnsupported)
}
