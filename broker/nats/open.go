package nats

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	gonats "github.com/nats-io/nats.go"
)

// External is a broker on a NATS server that somebody else runs, with a
// connection of its own.
type External struct {
	*Broker
	conn *gonats.Conn
}

// CheckAddress says what is wrong with an address: expected is
// nats://[USER[:PASSWORD]@]HOST[:PORT].
func CheckAddress(u *url.URL) error {
	switch {
	case u.Scheme != "nats" && u.Scheme != "tls":
		return fmt.Errorf("%q: expected nats://HOST:PORT or tls://HOST:PORT", u.Redacted())
	case u.Host == "" || u.Path != "" && u.Path != "/":
		return fmt.Errorf("%q: expected nats://HOST:PORT", u.Redacted())
	case u.RawQuery != "":
		return fmt.Errorf("%q: unknown parameters", u.Redacted())
	}
	return nil
}

// Open connects to the server at u, nil for nats://127.0.0.1:4222, and speaks
// as go-micro does. It waits for the server until ctx ends.
func Open(ctx context.Context, u *url.URL, o Options) (*External, error) {
	address := gonats.DefaultURL
	if u != nil {
		if err := CheckAddress(u); err != nil {
			return nil, fmt.Errorf("nats broker: %w", err)
		}
		address = u.String()
	}
	conn, err := gonats.Connect(address,
		gonats.Name("micro"),
		gonats.RetryOnFailedConnect(true), gonats.MaxReconnects(-1), gonats.ReconnectWait(200*time.Millisecond),
		// Nothing is buffered while the server is away: what is not sent fails.
		gonats.ReconnectBufSize(-1),
		gonats.PingInterval(5*time.Second), gonats.MaxPingsOutstanding(2),
	)
	if err != nil {
		return nil, fmt.Errorf("nats broker: %w", err)
	}
	o.GoMicro = true
	b, err := New(ctx, conn, o)
	if err != nil {
		if last := conn.LastError(); last != nil {
			err = fmt.Errorf("%w: %w", err, last)
		}
		conn.Close()
		return nil, err
	}
	return &External{b, conn}, nil
}

// Close closes the broker and the connection.
func (e *External) Close() error {
	err := e.Broker.Close()
	e.conn.Close()
	return err
}

// noStreams is the error of durable messaging on a server without JetStream.
func noStreams() error {
	return fmt.Errorf("this NATS server has no JetStream, so it keeps no messages: %w", errors.ErrUnsupported)
}
