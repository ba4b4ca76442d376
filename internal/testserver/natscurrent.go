package testserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// NATSCurrent returns a function that reports whether all servers of a cluster
// have all of the streams and consumers that they are to keep. It is for tests
// that kill one server at a time: who kills the next while one is still behind
// has two that lack messages.
func NATSCurrent(t testing.TB, addresses ...string) func() bool {
	t.Helper()
	conn, err := nats.Connect("nats://"+strings.Join(addresses, ",nats://"),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return natsCurrent(ctx, js)
	}
}

// natsCurrent reads each list to its end: who leaves one leaves a goroutine, too.
func natsCurrent(ctx context.Context, js jetstream.JetStream) bool {
	current := true
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		stream, err := js.Stream(ctx, name)
		if err != nil {
			current = false
			continue
		}
		current = current && allCurrent(stream.CachedInfo().Cluster)
		consumers := stream.ListConsumers(ctx)
		for info := range consumers.Info() {
			current = current && allCurrent(info.Cluster)
		}
		current = current && consumers.Err() == nil
	}
	return current && names.Err() == nil
}

func allCurrent(c *jetstream.ClusterInfo) bool {
	if c == nil {
		return true
	}
	for _, r := range c.Replicas {
		if !r.Current || r.Offline || r.Lag > 0 {
			return false
		}
	}
	return c.Leader != "" && len(c.Replicas) > 0
}
