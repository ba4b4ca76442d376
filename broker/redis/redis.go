// Package redis is the broker on a Redis server of version 7.0 or later, or
// one that speaks like it (Valkey). Live subscriptions listen to channels of
// its publish/subscribe. A topic that has durable queues has a stream, which
// keeps a message until the last of them has acknowledged it. The package owns
// the keys, all of which begin with "micro:", and the scripts that change them.
//
// What Redis has acknowledged is as safe as its own persistence makes it: with
// "appendfsync always" a power cut loses nothing, with "everysec" up to a
// second of messages, without an append-only file all since the last
// snapshot. Redis Cluster is not supported: a script cannot tell there who
// listens.
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/bound"
	"github.com/micro/sidecar/broker/internal/openset"
	"github.com/micro/sidecar/internal/engineurl"
)

const (
	// MaxMessage is the largest message in bytes, body and encoded header
	// together.
	MaxMessage = 32 << 20

	prefix      = "micro:"
	topicsKey   = prefix + "topics"   // the topics that have durable queues
	expiringKey = prefix + "expiring" // the queues that do not live forever

	dialTimeout = 2 * time.Second
	callTimeout = 3 * time.Second // of one read or write
	// idleTimeout is how old a connection may be that is used again: one that
	// the network has forgotten without a word costs a call its timeout.
	idleTimeout = 10 * time.Second
)

// Broker implements [broker.Broker], [broker.Durable], [broker.Deduplicator],
// [broker.Bulk] and [broker.Queues]. It is safe for concurrent use.
type Broker struct {
	client  *goredis.Client // not the library's interface, with which its 400 commands stay in the binary
	scripts *scripts
	log     *slog.Logger
	open    openset.Set

	mu      sync.Mutex
	safe    bool               // the server was asked whether it evicts
	janitor context.CancelFunc // nil before the first durable queue
	swept   chan struct{}      // closed when the janitor has ended
}

// options reads an address: redis://[USER:PASSWORD@]HOST:PORT[/DB], rediss://
// for TLS, or several hosts of Sentinels with ?master=NAME.
func options(u *url.URL) (*goredis.UniversalOptions, error) {
	if u == nil {
		u = &url.URL{Scheme: "redis", Host: "127.0.0.1:6379"}
	}
	if u.Scheme != "redis" && u.Scheme != "rediss" {
		return nil, fmt.Errorf("scheme %q: expected redis or rediss", u.Scheme)
	}
	hosts, err := engineurl.Hosts(u, "6379")
	if err != nil {
		return nil, err
	}
	p := engineurl.Query(u)
	o := &goredis.UniversalOptions{
		Addrs: hosts, MasterName: p.String("master", ""),
		ClientName: "micro", MaxRetries: -1, ContextTimeoutEnabled: true,
		DialerRetries: 1, DialTimeout: dialTimeout, ReadTimeout: callTimeout, WriteTimeout: callTimeout,
		PoolSize: p.Int("pool_size", 64, 1, 10_000), ConnMaxIdleTime: idleTimeout,
	}
	o.TLSConfig = engineurl.TLS(p, u.Scheme == "rediss")
	if db := strings.Trim(u.Path, "/"); db != "" {
		if _, err := fmt.Sscanf(db+"\n", "%d\n", &o.DB); err != nil || o.DB < 0 {
			return nil, fmt.Errorf("path %q: expected the number of a database", u.Path)
		}
	}
	if u.User != nil {
		o.Username = u.User.Username()
		o.Password, _ = u.User.Password()
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	if len(hosts) > 1 && o.MasterName == "" {
		return nil, errors.New("several hosts: expected ?master=NAME, the name under which the Sentinels there know the server")
	}
	return o, nil
}

// CheckAddress says what is wrong with an address.
func CheckAddress(u *url.URL) error {
	_, err := options(u)
	return err
}

// Open returns a broker on the server at the address; nil is the one of this
// machine. It does not wait for the server: what cannot reach it says so. log
// may be nil.
func Open(u *url.URL, log *slog.Logger) (*Broker, error) {
	o, err := options(u)
	if err != nil {
		return nil, fmt.Errorf("redis broker: %w", err)
	}
	quiet()
	s, err := newScripts()
	if err != nil {
		return nil, fmt.Errorf("redis broker: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	return &Broker{client: connect(o), scripts: s, log: log}, nil
}

// connect makes the client of a server, or of what Sentinels know under a name.
func connect(o *goredis.UniversalOptions) *goredis.Client {
	o.Dialer = dialer(o.Simple())
	if o.MasterName != "" {
		return goredis.NewFailoverClient(o.Failover())
	}
	return goredis.NewClient(o.Simple())
}

// quiet keeps the client library from writing to stderr: its logger is one for
// the whole process, and what matters is in the errors.
var quiet = sync.OnceFunc(logging.Disable)

// keys is what all keys of a topic begin with. The braces keep them together;
// a topic must not bring its own.
func keys(topic string) string { return prefix + "{" + escape(topic) + "}:" }

// escape and unescape keep braces and % out of a name.
func escape(s string) string {
	return strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D").Replace(s)
}

func unescape(s string) string {
	return strings.NewReplacer("%25", "%", "%7B", "{", "%7D", "}").Replace(s)
}

// full tells a server that has no room, in memory or on its disk.
func full(err error) error {
	if err == nil {
		return nil
	}
	if text := err.Error(); strings.Contains(text, "OOM ") || strings.Contains(text, "MISCONF") {
		return fmt.Errorf("%w: %w", broker.ErrFull, err)
	}
	return err
}

// run runs a script and returns at ctx's end, when the server is still at it
// or cannot be reached.
func (b *Broker) run(ctx context.Context, s *goredis.Script, keys []string, args ...any) *goredis.Cmd {
	cmd, err := bound.Call(ctx, func() (*goredis.Cmd, error) { return s.Run(ctx, b.client, keys, args...), nil })
	if err != nil {
		return goredis.NewCmdResult(nil, err)
	}
	return cmd
}

// Ping implements [broker.Pinger].
func (b *Broker) Ping(ctx context.Context) error {
	if b.open.Closed() {
		return broker.ErrClosed
	}
	if _, err := bound.Call(ctx, func() (string, error) { return b.client.Ping(ctx).Result() }); err != nil {
		return fmt.Errorf("the broker's Redis server cannot be reached: %w", err)
	}
	return nil
}

// Close ends all subscriptions and memberships and waits for their handlers.
func (b *Broker) Close() error {
	all, first := b.open.Close()
	if !first {
		return nil
	}
	b.mu.Lock()
	janitor, swept := b.janitor, b.swept
	b.mu.Unlock()
	if janitor != nil {
		janitor()
		<-swept
	}
	for _, e := range all {
		e.End()
	}
	return b.client.Close()
}
