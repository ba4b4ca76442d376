package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// publisher publishes over one channel, in confirm mode.
type publisher struct {
	link     *link
	exchange string

	busy    chan struct{} // held by the one who uses what follows
	conn    *connection
	channel *amqp.Channel
}

func newPublisher(l *link, exchange string) *publisher {
	return &publisher{link: l, exchange: exchange, busy: make(chan struct{}, 1)}
}

// ready returns the channel, a new one when there is none that works.
func (p *publisher) ready(ctx context.Context) (*connection, *amqp.Channel, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case p.busy <- struct{}{}:
		defer func() { <-p.busy }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if p.channel != nil && !p.channel.IsClosed() && !p.conn.IsClosed() {
		return p.conn, p.channel, nil
	}
	conn, ch, err := p.link.channel(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := bound.Call(ctx, func() (any, error) { return nil, ch.Confirm(false) }); err != nil {
		return nil, nil, err
	}
	p.conn, p.channel = conn, ch
	return conn, ch, nil
}

// grace is how long a message is waited for that was on its way when the
// server ran full: it mostly still takes it.
const grace = time.Second

var errLost = errors.New("the connection broke before the server had answered")

// publish publishes to the topics.
func (p *publisher) publish(ctx context.Context, key string, m amqp.Publishing) error {
	return p.send(ctx, p.exchange, key, m)
}

// send returns nil when the server has confirmed.
func (p *publisher) send(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	conn, ch, err := p.ready(ctx)
	if err != nil {
		return err
	}
	if _, reason := conn.full(); reason != "" {
		return fmt.Errorf("%w: %s", broker.ErrFull, reason)
	}
	confirm, err := bound.Call(ctx, func() (*amqp.DeferredConfirmation, error) {
		return ch.PublishWithDeferredConfirm(exchange, key, false, false, m)
	})
	if err != nil {
		return err
	}
	full, _ := conn.full()
	select {
	case <-confirm.Done():
	case <-ctx.Done():
		return ctx.Err()
	case <-full:
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-confirm.Done():
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			_, reason := conn.full()
			return fmt.Errorf("%w: %s", broker.ErrFull, reason)
		}
	}
	switch {
	case confirm.Acked():
		return nil
	case ch.IsClosed() || conn.IsClosed():
		return errLost
	}
	return fmt.Errorf("%w: the server has refused the message", broker.ErrFull)
}

// ping asks the server something.
func (p *publisher) ping(ctx context.Context) error {
	conn, _, err := p.ready(ctx)
	if err != nil {
		return err
	}
	ch, err := bound.Call(ctx, conn.Channel)
	if err != nil {
		return err
	}
	_, err = bound.Call(ctx, func() (any, error) { return nil, ch.Close() })
	return err
}
