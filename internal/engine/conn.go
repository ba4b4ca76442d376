package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// dialTimeout bounds the wait for a host that does not speak: it is paused.
	dialTimeout = 2 * time.Second
	// pingInterval and pingsOut notice a host that was paused while connected.
	pingInterval = 2 * time.Second
	pingsOut     = 2
	// writeTimeout bounds the time the connection's lock is held by a write
	// to a host that does not read.
	writeTimeout = 5 * time.Second
)

// dialer connects to whoever is the host at that moment. One dialer serves
// one connection, which calls it and credentials one after the other.
type dialer struct {
	folder  folder
	timeout time.Duration
	token   atomic.Pointer[string] // of the host dialled last
}

// Dial implements [nats.CustomDialer]. The address is not used.
//
// A published file may be older than its host's death, and the port may have
// been given to another program, of another user even, since. So nobody is
// dialled unless the lock is held: a new host removes the old file first.
func (d *dialer) Dial(string, string) (net.Conn, error) {
	held, err := d.folder.held()
	if err != nil {
		return nil, err
	}
	if !held {
		return nil, ErrNoHost
	}
	p, err := readPublished(d.folder.host())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("the engine's host has not published its address yet")
	case err != nil:
		return nil, err
	case p.Format > format:
		return nil, newer(d.folder.store(), p.Format)
	}
	conn, err := net.DialTimeout("tcp", p.Address, d.timeout)
	if err != nil {
		return nil, fmt.Errorf("connect to the engine's host (process %d): %w", p.PID, err)
	}
	d.token.Store(&p.Token)
	return conn, nil
}

// connect opens a connection to one account that lives until it is closed,
// whoever is the host.
func connect(f folder, account string, timeout time.Duration, log *slog.Logger) (*nats.Conn, error) {
	timeout = min(timeout, dialTimeout)
	d := &dialer{folder: f, timeout: timeout}
	return nats.Connect("nats://127.0.0.1:4222", // any address: the dialer knows better
		nats.Name("micro "+strconv.Itoa(os.Getpid())),
		nats.SetCustomDialer(d),
		nats.UserInfoHandler(func() (user, password string) { return account, *d.token.Load() }),
		nats.Timeout(timeout),
		nats.IgnoreDiscoveredServers(),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		// A token that was replaced meanwhile is no reason to give up.
		nats.IgnoreAuthErrorAbort(),
		// Nothing is buffered while the host is away: what is not sent fails.
		nats.ReconnectBufSize(-1),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Debug("embedded engine: connection", "account", account, "subject", subject, "error", err)
		}),
	)
}

// reconnectDelay is quick while a take-over is to be expected and then slower,
// with a random part so that not all processes come at the same time.
func reconnectDelay(attempt int) time.Duration {
	const quick = 100
	wait := 20 * time.Millisecond
	if attempt > quick {
		wait = 200 * time.Millisecond
	}
	return jitter(wait)
}
