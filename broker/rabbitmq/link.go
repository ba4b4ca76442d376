package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
)

// link makes connections when they are needed: at first, when one broke, and
// when one has no room for a further channel.
type link struct {
	address address
	busy    chan struct{} // held by the one who uses what follows
	conns   []*connection
	closed  bool
}

func newLink(a address) *link { return &link{address: a, busy: make(chan struct{}, 1)} }

// connection is one to a server, with the exchanges declared.
type connection struct {
	*amqp.Connection
	raw net.Conn

	mu      sync.Mutex
	reason  string        // why the server takes no messages
	blocked chan struct{} // closed while it takes none
}

// channel opens a channel, over a connection that is there if one has room.
func (l *link) channel(ctx context.Context) (*connection, *amqp.Channel, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	select {
	case l.busy <- struct{}{}:
		defer func() { <-l.busy }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if l.closed {
		return nil, nil, broker.ErrClosed
	}
	l.conns = slices.DeleteFunc(l.conns, func(c *connection) bool { return c.IsClosed() })
	for _, c := range l.conns {
		ch, err := bound.Call(ctx, c.Channel)
		if err == nil {
			return c, ch, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
	}
	c, err := l.address.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	l.conns = append(l.conns, c)
	ch, err := bound.Call(ctx, c.Channel)
	return c, ch, err
}

// close ends all connections and does not wait long for a server that is
// silent.
func (l *link) close() {
	l.busy <- struct{}{}
	defer func() { <-l.busy }()
	l.closed = true
	for _, c := range l.conns {
		c.end()
	}
	l.conns = nil
}

func (c *connection) end() {
	// Both fail only when the connection has gone.
	_ = c.CloseDeadline(time.Now().Add(callTimeout))
	_ = c.raw.Close()
}

// dial connects to the first host that lets us in.
func (a address) dial(ctx context.Context) (*connection, error) {
	var errs []error
	for _, host := range a.hosts {
		c, err := a.dialHost(ctx, host)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, fmt.Errorf("%s: %w", host, err))
	}
	return nil, errors.Join(errs...)
}

func (a address) dialHost(ctx context.Context, host string) (*connection, error) {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c := &connection{blocked: make(chan struct{})}
	stop := func() bool { return true }
	config := amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: a.user, Password: a.password}}, Vhost: a.vhost,
		Heartbeat: heartbeat, Properties: amqp.Table{"connection_name": "micro", "product": "micro"},
		Dial: func(network, _ string) (conn net.Conn, err error) {
			if c.raw, err = new(net.Dialer).DialContext(limited, network, host); err != nil {
				return nil, err
			}
			stop = context.AfterFunc(limited, func() { _ = c.raw.Close() }) // the client library knows no contexts
			return c.raw, nil
		},
	}
	scheme := "amqp"
	if a.tls != nil {
		scheme = "amqps"
		config.TLSClientConfig = a.tls.Clone()
		name, _, _ := net.SplitHostPort(host)
		config.TLSClientConfig.ServerName = cmp.Or(a.tls.ServerName, name)
	}
	var err error
	if c.Connection, err = amqp.DialConfig(scheme+"://ignored", config); err == nil {
		go c.watch(c.NotifyBlocked(make(chan amqp.Blocking, 1)))
		if err = c.declare(a); err != nil {
			c.end()
		}
	} else if c.raw != nil {
		_ = c.raw.Close() // the library may have left it
	}
	if !stop() {
		err = cmp.Or(ctx.Err(), err, limited.Err())
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// declare makes the exchanges and binds them to each other.
func (c *connection) declare(a address) error {
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }() // it fails only with the connection
	err = ch.ExchangeDeclare(a.exchange, amqp.ExchangeTopic, false, false, false, false, nil)
	if e, ok := errors.AsType[*amqp.Error](err); ok && e.Code == amqp.PreconditionFailed {
		// go-micro may have been told to make it another way, which is as good.
		if ch, err = c.Channel(); err != nil {
			return err
		}
		defer func() { _ = ch.Close() }()
	} else if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(a.durable(), amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	if err := ch.ExchangeBind(a.durable(), "#", a.exchange, false, nil); err != nil {
		return err
	}
	return ch.ExchangeBind(a.exchange, "#", a.durable(), false, nil)
}

// watch notices that the server takes no messages, and that it does again.
func (c *connection) watch(events <-chan amqp.Blocking) {
	for event := range events {
		c.mu.Lock()
		switch was := c.reason != ""; {
		case event.Active && !was:
			c.reason = cmp.Or(event.Reason, "blocked")
			close(c.blocked)
		case !event.Active && was:
			c.reason = ""
			c.blocked = make(chan struct{})
		}
		c.mu.Unlock()
	}
}

// full returns a channel that is closed while the server takes no messages,
// and why it takes none.
func (c *connection) full() (<-chan struct{}, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocked, c.reason
}
