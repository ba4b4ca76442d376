// Package link follows the state of one NATS connection, so that a driver
// never waits on a connection that is down longer than its caller allows, and
// learns at once when it is back. It owns no connection and speaks no subject
// of its own.
//
// It is needed because a *nats.Conn holds its lock while it dials: with a host
// that is paused, even asking it for its status can take seconds.
package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrLost is returned when the connection broke before the engine had
// answered: what was asked may or may not have happened.
var ErrLost = errors.New("the connection to the engine was lost before it answered")

// Patience bounds a call whose context has no deadline.
const Patience = 10 * time.Second

// Link is the state of a connection. It is safe for concurrent use.
type Link struct {
	conn   *nats.Conn
	events chan nats.Status
	closed func()

	mu   sync.Mutex
	up   chan struct{} // closed while the connection is up
	lost chan struct{} // closed once the connection that up announced is gone
	live bool
}

// New follows conn until it is closed or Close is called.
func New(conn *nats.Conn) *Link {
	l := &Link{conn: conn, up: make(chan struct{}), lost: make(chan struct{})}
	l.events = conn.StatusChanged()
	l.closed = sync.OnceFunc(func() { conn.RemoveStatusListener(l.events) })
	l.set(conn.IsConnected())
	go l.follow()
	return l
}

// Close stops following. The connection stays as it is.
func (l *Link) Close() { l.closed() }

// follow ends when Close closes the channel of events or the connection is closed.
func (l *Link) follow() {
	for status := range l.events {
		l.set(status == nats.CONNECTED)
		if status == nats.CLOSED {
			return
		}
	}
}

func (l *Link) set(live bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case live && !l.live:
		l.lost = make(chan struct{})
		close(l.up)
	case !live && l.live:
		l.up = make(chan struct{})
		close(l.lost)
	}
	l.live = live
}

// Up reports whether the connection is up now.
func (l *Link) Up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live
}

// Wait blocks until the connection is up and returns a channel that is closed
// when it is lost again; or it returns ctx's error.
func (l *Link) Wait(ctx context.Context) (lost <-chan struct{}, err error) {
	for {
		l.mu.Lock()
		up, lost, live := l.up, l.lost, l.live
		l.mu.Unlock()
		if live {
			return lost, ctx.Err()
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fmt.Errorf("not connected to the engine: %w", ctx.Err())
		}
	}
}

// Lost returns a channel that is closed while the connection is down.
func (l *Link) Lost() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.live {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return l.lost
}

// Once waits for the connection and calls fn, which uses it. It returns no
// later than ctx, and at once with [ErrLost] when the connection breaks
// meanwhile; fn may then still be running, with its context at an end, so it
// must own what it touches. What the connection did not send is tried again.
func Once[T any](ctx context.Context, l *Link, fn func(context.Context) (T, error)) (T, error) {
	return do(ctx, l, false, fn)
}

// Again is Once for what may be done twice: when the connection breaks it is
// done again on the next one, until ctx ends.
func Again[T any](ctx context.Context, l *Link, fn func(context.Context) (T, error)) (T, error) {
	return do(ctx, l, true, fn)
}

func do[T any](ctx context.Context, l *Link, again bool, fn func(context.Context) (T, error)) (T, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, Patience)
		defer cancel()
	}
	for {
		lost, err := l.Wait(ctx)
		if err != nil {
			var none T
			return none, err
		}
		v, err := try(ctx, lost, fn)
		switch {
		case unsent(err):
			settle(ctx, lost)
		case again && errors.Is(err, ErrLost):
		default:
			return v, err
		}
	}
}

// try calls fn once, with a context that ends with the connection.
func try[T any](ctx context.Context, lost <-chan struct{}, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		v, err := fn(bound)
		done <- result{v, err}
	}()
	var none T
	select {
	case r := <-done:
		return r.v, r.err
	case <-lost:
		select {
		case r := <-done: // it had its answer
			return r.v, r.err
		default:
			return none, ErrLost
		}
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// unsent tells errors that mean the connection refused to take what was to be
// sent: it has no buffer for the time while it is down.
func unsent(err error) bool {
	return errors.Is(err, nats.ErrReconnectBufExceeded) || errors.Is(err, nats.ErrDisconnected)
}

// settle waits until the loss that the connection already knows of has been
// announced. The timer is for a connection that came back meanwhile.
func settle(ctx context.Context, lost <-chan struct{}) {
	timer := time.NewTimer(10 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-lost:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Ping makes a round trip to the engine. Unlike Once it does not wait for a
// connection that is down.
func Ping(ctx context.Context, l *Link) error {
	if !l.Up() {
		return errors.New("not connected")
	}
	_, err := Once(ctx, l, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, l.conn.FlushWithContext(ctx)
	})
	return err
}
