// Package natsconn connects to a NATS server that somebody else runs, at the
// address that --registry_address or --broker_address gives. It owns what the
// address says and how a connection is kept; the drivers own what travels on
// it.
package natsconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/engineurl"
)

const (
	defaultAddress = "127.0.0.1"
	defaultPort    = "4222"

	// dialTimeout bounds the wait for a server that does not speak.
	dialTimeout = 2 * time.Second
	// pingInterval and pingsOut notice a server that went silent.
	pingInterval = 3 * time.Second
	pingsOut     = 2
	// writeTimeout bounds a write to a server that does not read.
	writeTimeout = 5 * time.Second
)

// Config is what an address says.
type Config struct {
	servers []string
	tls     *tls.Config
	options []nats.Option
}

// Parse reads an address: nats://host:port,… or tls://host:port,…, with
// user:password or a token before the hosts, and the parameters
//
//	creds   a file of the server's own making, with JWT and key
//	nkey    a file with the seed of a key
//	token   a token
//	        and those of [engineurl.TLS]
//
// which it asks p for. nil is 127.0.0.1:4222. Files are read here, to see that
// they can be, and at every connection. The caller asks for parameters of its
// own and then for p's error.
func Parse(u *url.URL, p *engineurl.Params) (*Config, error) {
	if u == nil {
		u = &url.URL{Scheme: "nats", Host: defaultAddress}
	}
	switch {
	case u.Scheme != "nats" && u.Scheme != "tls":
		return nil, fmt.Errorf("address scheme: expected nats or tls, got %q", u.Scheme)
	case u.Path != "" && u.Path != "/":
		return nil, fmt.Errorf("address: expected no path, got %q", u.Path)
	}
	hosts, err := engineurl.Hosts(u, defaultPort)
	if err != nil {
		return nil, err
	}
	c := &Config{tls: engineurl.TLS(p, u.Scheme == "tls")}
	for _, host := range hosts {
		c.servers = append(c.servers, "nats://"+host)
	}
	if c.tls != nil {
		c.options = append(c.options, nats.Secure(c.tls))
	}
	return c, c.credentials(u.User, p)
}

// credentials takes at most one way to say who we are.
func (c *Config) credentials(user *url.Userinfo, p *engineurl.Params) error {
	creds, nkey, token := p.String("creds", ""), p.String("nkey", ""), p.String("token", "")
	ways := 0
	for _, given := range []bool{user != nil, creds != "", nkey != "", token != ""} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("address: expected one of user:password, creds, nkey and token, got several")
	}
	switch {
	case user != nil:
		password, both := user.Password()
		if both {
			c.options = append(c.options, nats.UserInfo(user.Username(), password))
		} else {
			c.options = append(c.options, nats.Token(user.Username())) // as in NATS's own URLs
		}
	case token != "":
		c.options = append(c.options, nats.Token(token))
	case creds != "":
		if text, err := os.ReadFile(creds); err != nil || !strings.Contains(string(text), "BEGIN NATS USER JWT") {
			p.Fail("creds", creds, "a readable file of NATS credentials")
		}
		c.options = append(c.options, nats.UserCredentials(creds))
	case nkey != "":
		option, err := nats.NkeyOptionFromSeed(nkey)
		if err != nil {
			p.Fail("nkey", nkey, "a readable file with the seed of an NKey")
			return nil
		}
		c.options = append(c.options, option)
	}
	return nil
}

// Conn is a connection that tells why it is not one.
type Conn struct {
	*nats.Conn
	failure atomic.Pointer[error]
}

// Connect opens a connection that lives until it is closed, whatever happens
// to the servers. It does not wait for one: they may come later. Outages are
// logged, each once. Nothing is buffered while it is down.
func (c *Config) Connect(log *slog.Logger, more ...nats.Option) (*Conn, error) {
	conn := &Conn{}
	told := atomic.Bool{}
	failed := func(_ *nats.Conn, err error) {
		conn.failure.Store(&err)
		if !told.Swap(true) {
			log.Warn("NATS cannot be reached; trying on", "servers", strings.Join(c.servers, " "), "error", err)
		}
	}
	connected := func(nc *nats.Conn) {
		conn.failure.Store(nil)
		if told.Swap(false) {
			log.Info("NATS is reached again", "server", nc.ConnectedUrlRedacted())
		}
	}
	options := append([]nats.Option{
		nats.Name("micro " + strconv.Itoa(os.Getpid())),
		nats.Timeout(dialTimeout),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(200 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 300*time.Millisecond),
		nats.IgnoreAuthErrorAbort(), // credentials are replaced while a sidecar runs
		nats.ReconnectBufSize(-1),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsOut),
		nats.ReconnectErrHandler(failed),
		nats.ConnectHandler(connected),
		nats.ReconnectHandler(connected),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Debug("NATS: connection", "subject", subject, "error", err)
		}),
	}, append(c.options, more...)...)
	var err error
	conn.Conn, err = nats.Connect(strings.Join(c.servers, ","), options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	return conn, nil
}

// Explain adds to an error why the connection is down, if it is.
func (c *Conn) Explain(err error) error {
	if why := c.failure.Load(); err != nil && why != nil {
		return fmt.Errorf("%w: %w", err, *why)
	}
	return err
}
