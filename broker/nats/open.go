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
// go-micro does. The parameter replicas is [Options.Replicas]. It waits for the server until ctx ends, at most
// [link.Patience].
func Open(ctx context.Context, u *url.URL, o Options) (*External, error) {
	config, replicas, err := configure(u)
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
	o.GoMicro, o.Replicas = true, replicas
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
	_, _, err := configure(u)
	return err
}

func configure(u *url.URL) (config *natsconn.Config, replicas int, err error) {
	p := engineurl.Query(u)
	if config, err = natsconn.Parse(u, p); err != nil {
		return nil, 0, err
	}
	for _, registrys := range []string{"bucket", "layout"} {
		p.String(registrys, "") // one address may be that of both
	}
	replicas = p.Int("replicas", 0, 1, 5)
	return config, replicas, p.Err()
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
