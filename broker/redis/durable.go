package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// Declare implements [broker.Durable]. It refuses a server that throws keys
// away when its memory is full, for it would lose messages.
func (b *Broker) Declare(ctx context.Context, topic, queue string, o broker.QueueOptions) error {
	switch {
	case topic == "":
		return errors.New("declare queue: the topic is empty")
	case queue == "":
		return errors.New("declare queue: its name is empty")
	case b.open.Closed():
		return broker.ErrClosed
	}
	if err := b.refuseEviction(ctx); err != nil {
		return fmt.Errorf("declare queue %s: %w", queue, err)
	}
	err := b.store(ctx, b.scripts.declare, []string{keys(topic), topicsKey, expiringKey},
		queue, escape(topic), broker.DefaultAckWait.Milliseconds(),
		given(ceil(o.AckWait)), given(int64(o.MaxInFlight)), given(ceil(o.Expires)))
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", queue, full(err))
	}
	return b.startJanitor()
}

// given is an option for declare.lua: "" for what is left open, 0 for what is
// taken back.
func given(n int64) any {
	switch {
	case n == 0:
		return ""
	case n < 0:
		return 0
	}
	return n
}

// ceil is a time in ms that is 0 only for 0.
func ceil(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// refuseEviction asks the server, once, whether it may throw messages away. A
// server that does not tell (CONFIG is often forbidden) is believed.
func (b *Broker) refuseEviction(ctx context.Context) error {
	b.mu.Lock()
	safe := b.safe
	b.mu.Unlock()
	if safe {
		return nil
	}
	config, err := bound.Call(ctx, func() (map[string]string, error) { return b.client.ConfigGet(ctx, "maxmemory*").Result() })
	var told goredis.Error
	if err != nil && !errors.As(err, &told) {
		return err
	}
	if policy := config["maxmemory-policy"]; config["maxmemory"] != "0" && strings.HasPrefix(policy, "allkeys-") {
		return fmt.Errorf("the Redis server throws away any key when its memory is full (maxmemory-policy %s): durable queues need noeviction or a volatile-… policy", policy)
	}
	b.mu.Lock()
	b.safe = true
	b.mu.Unlock()
	return nil
}

// startJanitor begins to remove queues whose time without a member is over.
func (b *Broker) startJanitor() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Closed() {
		return broker.ErrClosed
	}
	if b.janitor != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.janitor, b.swept = cancel, make(chan struct{})
	go b.sweep(ctx)
	return nil
}

// sweepInterval is how late an abandoned queue may be removed.
const sweepInterval = 2 * time.Second

func (b *Broker) sweep(ctx context.Context) {
	defer close(b.swept)
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := b.removeExpired(ctx); err != nil && ctx.Err() == nil {
			b.log.Debug("broker: expired queues could not be looked for", "error", err)
		}
	}
}

// removeExpired deletes the queues that were without a member for too long.
func (b *Broker) removeExpired(ctx context.Context) error {
	names, err := b.set(ctx, expiringKey)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		topic, queue, _ := strings.Cut(name, "}") // see declare.lua
		topic = unescape(topic)
		info, err := b.Queue(ctx, topic, queue)
		if err == nil && info.Members == 0 && info.Expires > 0 {
			err = b.deleteQueue(ctx, topic, queue, info.Expires)
		}
		if err != nil && !errors.Is(err, broker.ErrNoQueue) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
