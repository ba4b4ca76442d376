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

// send returns nil when the server has confirmed.
func (p *publisher) send(ctx context.Context, exchange, key string, m amqp.Publishing) error {
	return p.carry(ctx, newSent(), exchange, key, m)
}

// sent is a message on its way to the server. Several may wait for it.
type sent struct {
	off     chan struct{} // closed when the message has been sent, or not
	err     error         // why not
	conn    *connection
	channel *amqp.Channel
	confirm *amqp.DeferredConfirmation
}

func newSent() *sent { return &sent{off: make(chan struct{})} }

// carry sends the message that s is, and waits for it. When ctx ends before it
// has been sent that may go on, and s knows when it is done.
func (p *publisher) carry(ctx context.Context, s *sent, exchange, key string, m amqp.Publishing) error {
	conn, ch, err := p.ready(ctx)
	if err == nil {
		if _, reason := conn.full(); reason != "" {
			err = fmt.Errorf("%w: %s", broker.ErrFull, reason)
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if s.conn, s.channel = conn, ch; err != nil {
		s.err = err
		close(s.off)
		return err
	}
	go func() { // it may block, and knows no contexts
		defer close(s.off)
		s.confirm, s.err = ch.PublishWithDeferredConfirm(exchange, key, false, false, m)
	}()
	return s.wait(ctx)
}

// wait returns nil when the server has confirmed.
func (s *sent) wait(ctx context.Context) error {
	select {
	case <-s.off:
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.err != nil {
		return s.err
	}
	full, _ := s.conn.full()
	select {
	case <-s.confirm.Done():
	case <-ctx.Done():
		return ctx.Err()
	case <-full:
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-s.confirm.Done():
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			_, reason := s.conn.full()
			return fmt.Errorf("%w: %s", broker.ErrFull, reason)
		}
	}
	switch {
	case s.confirm.Acked():
		return nil
	case s.channel.IsClosed() || s.conn.IsClosed():
		return errLost
	}
	return fmt.Errorf("%w: the server has refused the message", broker.ErrFull)
}

// state tells whether the server has confirmed, and whether it may yet do so.
func (s *sent) state() (stored, open bool) {
	select {
	case <-s.off:
	default:
		return false, true
	}
	if s.err != nil {
		return false, false
	}
	select {
	case <-s.confirm.Done():
		return s.confirm.Acked(), false
	default:
		return false, true
	}
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
