package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/natsconn"
	"github.com/micro/sidecar/internal/sleep"
	"github.com/micro/sidecar/registry"
)

// gatheringPause is the time between two looks at a cluster that gathers.
const gatheringPause = 200 * time.Millisecond

// External is a registry on a NATS server that somebody else runs, with a
// connection of its own.
type External struct {
	*Registry
	conn *natsconn.Conn
}

var (
	_ registry.Registry = (*External)(nil)
	_ registry.Pinger   = (*External)(nil)
)

// Open connects to the server at u, see [natsconn.Parse], and opens the bucket
// of the parameter bucket; where it has to be created it is kept by as many
// servers as the parameter replicas says. It waits for the server until ctx
// ends, at most [link.Patience].
func Open(ctx context.Context, u *url.URL, log *slog.Logger) (*External, error) {
	config, o, err := configure(u)
	if err != nil {
		return nil, fmt.Errorf("open nats registry: %w", err)
	}
	o.Log = log
	conn, err := config.Connect(log)
	if err != nil {
		return nil, fmt.Errorf("open nats registry: %w", err)
	}
	r, err := openPatiently(ctx, conn, o)
	if err != nil {
		err = conn.Explain(err)
		conn.Close()
		return nil, err
	}
	return &External{Registry: r, conn: conn}, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, _, err := configure(u)
	return err
}

func configure(u *url.URL) (*natsconn.Config, Options, error) {
	p := engineurl.Query(u)
	config, err := natsconn.Parse(u, p)
	if err != nil {
		return nil, Options{}, err
	}
	o := Options{Bucket: p.String("bucket", DefaultBucket), Replicas: p.Int("replicas", 1, 1, 5)}
	p.Choice("layout", "kv", "gomicro") // the other one is package natsquery's
	if !jetstreamName(o.Bucket) {
		p.Fail("bucket", o.Bucket, "letters, digits, - and _")
	}
	return config, o, p.Err()
}

// openPatiently waits for a cluster whose JetStream has no leader, or too few
// servers, yet.
func openPatiently(ctx context.Context, conn *natsconn.Conn, o Options) (*Registry, error) {
	ctx, cancel := context.WithTimeout(ctx, link.Patience)
	defer cancel()
	for {
		r, err := New(ctx, conn.Conn, o)
		if !gathering(err) {
			return r, err
		}
		if over := sleep.For(ctx, gatheringPause); over != nil {
			return nil, fmt.Errorf("%w: %w", over, err)
		}
	}
}

// gathering tells what a cluster says that is not complete.
func gathering(err error) bool {
	const noPeers = 10005 // no suitable peers for placement
	refusal, ok := isRefusal(err)
	return ok && (refusal.ErrorCode == noPeers || refusal.Code == 503 && refusal.ErrorCode != jetstream.JSErrCodeJetStreamNotEnabled)
}

// isRefusal returns what the server has answered instead.
func isRefusal(err error) (*jetstream.APIError, bool) { return errors.AsType[*jetstream.APIError](err) }

// Close ends the connection.
func (e *External) Close() error {
	err := e.Registry.Close()
	e.conn.Close()
	return err
}

// Ping implements [registry.Pinger].
func (e *External) Ping(ctx context.Context) error { return e.conn.Explain(e.Registry.Ping(ctx)) }
