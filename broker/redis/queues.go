package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// batch is how many messages one script touches: the server does nothing else
// meanwhile.
const batch = 1000

// Queues implements [broker.Queues].
func (b *Broker) Queues(ctx context.Context) ([]broker.QueueInfo, error) {
	topics, err := b.set(ctx, topicsKey)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	var all []broker.QueueInfo
	for _, topic := range topics {
		topic = unescape(topic)
		queues, err := b.set(ctx, keys(topic)+"queues")
		if errors.Is(err, errSpoiled) { // the other topics can be seen
			b.log.Warn("broker: the queues of a topic cannot be looked at", "topic", topic, "error", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list queues: %w", err)
		}
		for _, queue := range queues {
			info, err := b.Queue(ctx, topic, queue)
			switch {
			case errors.Is(err, broker.ErrNoQueue): // it has just gone
				continue
			case errors.Is(err, errSpoiled): // the others can be seen
				b.log.Warn("broker: a queue cannot be looked at", "topic", topic, "error", err)
				continue
			case err != nil:
				return nil, err
			}
			all = append(all, info)
		}
	}
	slices.SortFunc(all, func(x, y broker.QueueInfo) int {
		return cmp.Or(strings.Compare(x.Topic, y.Topic), strings.Compare(x.Queue, y.Queue))
	})
	return all, nil
}

// set returns the members of a set of the server's.
func (b *Broker) set(ctx context.Context, key string) ([]string, error) {
	members, err := bound.Call(ctx, func() ([]string, error) { return b.client.SMembers(ctx, key).Result() })
	return members, spoiled(err, key)
}

// Queue implements [broker.Queues].
func (b *Broker) Queue(ctx context.Context, topic, queue string) (broker.QueueInfo, error) {
	answer, err := b.run(ctx, b.scripts.info, []string{keys(topic)}, queue, presence.Milliseconds()).Slice()
	if err != nil {
		return broker.QueueInfo{}, fmt.Errorf("queue %s: %w", queue, known(err))
	}
	if len(answer) != 9 {
		return broker.QueueInfo{}, fmt.Errorf("queue %s: %w", queue, errIncomplete)
	}
	n, err := integers(slices.Concat(answer[:2], answer[3:]))
	if err != nil {
		return broker.QueueInfo{}, fmt.Errorf("queue %s: %w", queue, err)
	}
	info := broker.QueueInfo{
		Topic: topic, Queue: queue, Lag: int(n[0]), Held: int(n[1]), Members: int(n[2]),
		AckWait: milliseconds(n[4]), MaxInFlight: int(n[5]), Expires: milliseconds(n[6]),
	}
	if oldest, _ := answer[2].(string); oldest != "" {
		info.Oldest, _ = timeOf(oldest)
	}
	if n[3] > 0 {
		info.LastSeen = time.UnixMilli(n[3])
	}
	return info, nil
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// known tells a queue that does not exist.
func known(err error) error {
	if errors.Is(err, goredis.Nil) {
		return broker.ErrNoQueue
	}
	return full(err)
}

// Purge implements [broker.Queues]. What is published meanwhile stays.
func (b *Broker) Purge(ctx context.Context, topic, queue string) (int, error) {
	last, err := b.last(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("purge queue %s: %w", queue, err)
	}
	dropped := 0
	for {
		answer, err := b.run(ctx, b.scripts.purge, []string{keys(topic)}, queue, batch, last).Int64Slice()
		if err == nil && len(answer) != 2 {
			err = errIncomplete
		}
		if err != nil {
			return dropped, fmt.Errorf("purge queue %s: %w", queue, known(err))
		}
		dropped += int(answer[0])
		if answer[1] == 0 {
			return dropped, nil
		}
	}
}

// last is the id of the last message of a topic.
func (b *Broker) last(ctx context.Context, topic string) (string, error) {
	entries, err := bound.Call(ctx, func() ([]goredis.XMessage, error) {
		return b.client.XRevRangeN(ctx, keys(topic)+"log", "+", "-", 1).Result()
	})
	if err != nil || len(entries) == 0 {
		return "0-0", err
	}
	return entries[0].ID, nil
}

// Delete implements [broker.Queues].
func (b *Broker) Delete(ctx context.Context, topic, queue string) error {
	return b.deleteQueue(ctx, topic, queue, 0)
}

// deleteQueue deletes a queue if nobody was there for as long as idle.
func (b *Broker) deleteQueue(ctx context.Context, topic, queue string, idle time.Duration) error {
	for {
		done, err := b.run(ctx, b.scripts.deleteQueue, []string{keys(topic), topicsKey, expiringKey},
			queue, batch, escape(topic), idle.Milliseconds()).Int()
		if err != nil {
			return fmt.Errorf("delete queue %s: %w", queue, known(err))
		}
		if done == 1 {
			return nil
		}
	}
}

// Remove implements [broker.Queues].
func (b *Broker) Remove(ctx context.Context, topic, queue, id string) error {
	if _, ok := position(id); !ok {
		return broker.ErrNoMessage
	}
	n, err := b.run(ctx, b.scripts.remove, []string{keys(topic)}, queue, id).Int()
	switch {
	case err != nil:
		return fmt.Errorf("queue %s: remove %s: %w", queue, id, known(err))
	case n == 0:
		return broker.ErrNoMessage
	}
	return nil
}

// Browse implements [broker.Queues].
func (b *Broker) Browse(ctx context.Context, topic, queue, after string, limit int) ([]broker.Stored, error) {
	from := [2]uint64{}
	if after != "" {
		var ok bool
		if from, ok = position(after); !ok {
			return nil, fmt.Errorf("browse queue %s: %w: %.100q", queue, broker.ErrNoMessage, after)
		}
	}
	ids, err := b.run(ctx, b.scripts.browse, []string{keys(topic)}, queue).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("browse queue %s: %w", queue, known(err))
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("browse queue %s: %w", queue, errIncomplete)
	}
	next, given := ids[0], ids[1:]
	given = slices.DeleteFunc(given, func(id string) bool {
		p, ok := position(id)
		return !ok || slices.Compare(p[:], from[:]) <= 0
	})
	slices.SortFunc(given, func(x, y string) int {
		px, _ := position(x)
		py, _ := position(y)
		return slices.Compare(px[:], py[:])
	})
	var out []broker.Stored
	for _, id := range given[:min(limit, len(given))] {
		if out, err = b.read(ctx, out, topic, id, id, 1); err != nil {
			return nil, err
		}
	}
	if rest := limit - len(out); rest > 0 {
		if p, ok := position(next); ok && slices.Compare(from[:], p[:]) > 0 {
			next = after
		}
		return b.read(ctx, out, topic, "("+next, "+", rest)
	}
	return out, nil
}

// read appends messages of the log to out.
func (b *Broker) read(ctx context.Context, out []broker.Stored, topic, from, to string, n int) ([]broker.Stored, error) {
	entries, err := bound.Call(ctx, func() ([]goredis.XMessage, error) {
		return b.client.XRangeN(ctx, keys(topic)+"log", from, to, int64(n)).Result()
	})
	if err != nil {
		return nil, fmt.Errorf("browse: %w", err)
	}
	for _, e := range entries {
		text, _ := e.Values["m"].(string)
		m, _ := decode([]byte(text)) // what is none of ours is a body
		at, _ := timeOf(e.ID)
		out = append(out, broker.Stored{Delivery: broker.Delivery{Topic: topic, Message: m}, ID: e.ID, At: at})
	}
	return out, nil
}

// position reads the id of a stream's entry: milliseconds and sequence.
func position(id string) (p [2]uint64, ok bool) {
	ms, seq, ok := strings.Cut(id, "-")
	if !ok {
		return p, false
	}
	for i, text := range []string{ms, seq} {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n > math.MaxInt64 || strconv.FormatUint(n, 10) != text {
			return p, false
		}
		p[i] = n
	}
	return p, true
}
