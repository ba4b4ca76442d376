package redis_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/testserver"
)

// With replicas asked for, a message is stored when they have it. One that they
// did not get in time is an error, also when it is published again, until they
// have it; and it comes once.
func TestReplicas(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	host, port, err := net.SplitHostPort(server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	replica := testserver.Redis(t, "--replicaof", host, port)
	b, err := redis.Open(&url.URL{Scheme: "redis", Host: server.Addr, RawQuery: "replicas=1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for ctx := within(t); ; { // until the replica has joined
		if err = b.Declare(ctx, "orders", "q", broker.QueueOptions{}); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	once := func(ctx context.Context) error {
		return b.PublishOnce(ctx, "orders", "id", broker.Message{Body: []byte("0")})
	}
	replica.Pause()
	for range 2 {
		begun := time.Now()
		if err := once(within(t)); err == nil || errors.Is(err, broker.ErrFull) {
			t.Errorf("without the replica: %v", err)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("that took %v", took)
		}
	}
	replica.Continue()
	for ctx := within(t); ; {
		if err = once(ctx); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := b.Queue(within(t), "orders", "q"); err != nil || info.Lag != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	// The replica has what the server had.
	server.Stop()
	replica.Do(t, "REPLICAOF", "NO", "ONE")
	other := open(t, replica)
	defer other.Close()
	receive(t, join(t, other, broker.JoinOptions{}), 0)
}
