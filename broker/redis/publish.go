package redis

import (
	"context"
	"errors"
	"fmt"

	"github.com/micro/sidecar/broker"
)

// What one script stores: the server does nothing else meanwhile.
const (
	maxTogether      = 64
	maxTogetherBytes = 1 << 20 // a single message aside
)

// Publish implements [broker.Broker]. When the connection breaks before the
// server has answered, the message may have been taken.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	return b.PublishAll(ctx, topic, []string{""}, []broker.Message{m})[0]
}

// PublishOnce implements [broker.Deduplicator].
func (b *Broker) PublishOnce(ctx context.Context, topic, id string, m broker.Message) error {
	if id == "" {
		return errors.New("publish: the id is empty")
	}
	return b.PublishAll(ctx, topic, []string{id}, []broker.Message{m})[0]
}

// PublishAll implements [broker.Bulk]. Messages go out as many at a time as one
// script stores, which takes all of them or none. What follows a failure is not
// tried.
func (b *Broker) PublishAll(ctx context.Context, topic string, ids []string, all []broker.Message) []error {
	errs := make([]error, len(all))
	p := publication{errs: errs, send: func(args []any) error {
		switch {
		case topic == "":
			return errors.New("the topic is empty")
		case b.open.Closed():
			return broker.ErrClosed
		}
		args = append([]any{broker.OnceWithin.Milliseconds()}, args...)
		return full(b.run(ctx, b.scripts.publish, []string{keys(topic)}, args...).Err())
	}}
	for i, m := range all {
		p.add(i, ids[i], encode(m))
	}
	p.flush()
	return errs
}

// publication is what one script stores at a time.
type publication struct {
	errs   []error // of the caller's messages
	send   func(args []any) error
	failed error // of the script before

	args  []any
	index []int // in the caller's list
	bytes int
}

func (p *publication) add(i int, id string, text []byte) {
	if len(text) > MaxMessage {
		p.errs[i] = fmt.Errorf("publish: %w: %d bytes with its header, at most %d", broker.ErrTooLarge, len(text), MaxMessage)
		return
	}
	if len(p.index) == maxTogether || p.bytes+len(text) > maxTogetherBytes {
		p.flush()
	}
	p.args, p.index = append(p.args, id, text), append(p.index, i)
	p.bytes += len(text)
}

// flush sends what has been added, unless something has failed before.
func (p *publication) flush() {
	if p.failed == nil && len(p.index) > 0 {
		p.failed = p.send(p.args)
	}
	for _, i := range p.index {
		if p.failed != nil {
			p.errs[i] = fmt.Errorf("publish: %w", p.failed)
		}
	}
	p.args, p.index, p.bytes = p.args[:0], p.index[:0], 0
}
