package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
)

// holding implements [broker.Holding]. The server knows a delivery by its
// number: one that is over changes nothing.
type holding struct {
	member   *member
	id       string
	delivery int64
	size     int  // in bytes
	turn     bool // it belongs to a turn
}

func (h *holding) Ack(ctx context.Context) error {
	return h.settle(ctx, h.member.broker.scripts.ack)
}

func (h *holding) Nack(ctx context.Context, delay time.Duration) error {
	return h.settle(ctx, h.member.broker.scripts.giveback, delay.Milliseconds(), 0)
}

func (h *holding) Return(ctx context.Context) error {
	return h.settle(ctx, h.member.broker.scripts.giveback, 0, 1)
}

func (h *holding) Extend(ctx context.Context) error {
	return h.run(ctx, h.member.broker.scripts.extend)
}

// Ours implements [broker.Fenced]: without the turn of an ordered queue nothing
// is.
func (h *holding) Ours() bool {
	m := h.member
	m.mu.Lock()
	defer m.mu.Unlock()
	m.look()
	return !h.turn || !m.until.IsZero()
}

// Lapse frees the place of a message that the server gives to another member.
func (h *holding) Lapse() { h.member.free(h) }

func (h *holding) settle(ctx context.Context, s *goredis.Script, args ...any) error {
	if err := h.run(ctx, s, args...); err != nil {
		return err
	}
	h.member.free(h)
	return nil
}

func (h *holding) run(ctx context.Context, s *goredis.Script, args ...any) error {
	m := h.member
	args = append([]any{m.queue, h.id, h.delivery}, args...)
	n, err := m.broker.run(ctx, s, []string{keys(m.topic)}, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("queue %s, message %s: %w", m.queue, h.id, full(err))
	case n == 0:
		return broker.ErrLapsed
	}
	return nil
}

// timeOf is when the server took the message with this id.
func timeOf(id string) (time.Time, bool) {
	ms, _, ok := strings.Cut(id, "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	return time.UnixMilli(n), ok && err == nil
}

// errIncomplete is for an answer that no script gives.
var errIncomplete = errors.New("the server's answer is incomplete")

// integers reads what a script returns as numbers.
func integers(values []any) ([]int64, error) {
	out := make([]int64, len(values))
	for i, v := range values {
		n, ok := v.(int64)
		if !ok {
			return nil, fmt.Errorf("the server's answer is no number: %.100v", v)
		}
		out[i] = n
	}
	return out, nil
}
