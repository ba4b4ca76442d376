package redis

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// silence is for how long a connection that listens may receive nothing: the
// client library sends a ping each 3 s, but does not miss its answer.
const silence = 8 * time.Second

// conn is a connection on which a read without a deadline ends after a time of
// silence. Otherwise one that the network has forgotten would be listened to
// for as long as the system believes in it.
type conn struct {
	net.Conn
	endless atomic.Bool // reads have no deadline
}

func dialer(o *goredis.Options) func(context.Context, string, string) (net.Conn, error) {
	dial := goredis.NewDialer(o)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		bounded := &conn{Conn: c}
		if raw, ok := c.(syscall.Conn); ok { // with it the library finds out that a connection was closed
			return struct {
				*conn
				syscall.Conn
			}{bounded, raw}, nil
		}
		return bounded, nil
	}
}

func (c *conn) Read(b []byte) (int, error) {
	if !c.endless.Load() {
		return c.Conn.Read(b)
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = c.Conn.Close() // the library would read again
	}
	return n, err
}

func (c *conn) SetDeadline(t time.Time) error {
	c.endless.Store(t.IsZero())
	return c.Conn.SetDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.endless.Store(t.IsZero())
	return c.Conn.SetReadDeadline(t)
}
