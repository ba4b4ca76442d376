// Package httpbroker speaks go-micro's "http" broker, in which there is no
// server in the middle: a subscriber listens on HTTP and registers itself in
// the service registry, a publisher looks the subscribers up and posts the
// message to each. Three generations of go-micro do that in three slightly
// different ways; this package speaks all of them, both ways.
//
// It owns the listener for deliveries, the registrations of the subscriptions
// and the calls to other subscribers. It stores nothing: a message is sent
// once to those who are there.
package httpbroker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
)

// DefaultMaxMessageSize is used when Options.MaxMessageSize is 0.
const DefaultMaxMessageSize = 4 << 20

const (
	// patience is how long Publish waits for one subscriber's answer. Who is
	// slower gets what follows without being waited for, until he answers.
	patience = 2 * time.Second
	// deliveryTimeout bounds one delivery; go-micro subscribers answer only
	// when their handler has returned.
	deliveryTimeout = 30 * time.Second
	// dialTimeout bounds the connection to a subscriber.
	dialTimeout = 2 * time.Second
	// leaveTimeout bounds what Close does at the registry and what it waits
	// for deliveries that are under way.
	leaveTimeout = 2 * time.Second
)

// Options say where the broker listens and through what it finds others.
type Options struct {
	// Registry is where subscriptions are registered and looked up. Required.
	Registry registry.Registry
	// Listen is the "host:port" deliveries come in at; "" is "127.0.0.1:0".
	// It is bound by the first Subscribe.
	Listen string
	// Advertise is the host that is registered; "" is the host of Listen, or
	// an address of this machine when Listen names none.
	Advertise string
	// MaxMessageSize is the largest body in bytes, both ways; 0 is
	// DefaultMaxMessageSize.
	MaxMessageSize int64
	// TLS rules connections to subscribers that are registered as secure. nil
	// encrypts without verifying, as go-micro does: its subscribers make up a
	// certificate of their own at each start.
	TLS *tls.Config
	// Log may be nil.
	Log *slog.Logger
}

// Broker is a [broker.Broker].
type Broker struct {
	o       Options
	log     *slog.Logger
	client  *http.Client
	lookups *lookups
	peers   *peers
	roster  *roster

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	tasks sync.WaitGroup // the listener and the renewal of registrations
	sends sync.WaitGroup // calls and deliveries; grows only while open or not zero

	mu       sync.Mutex
	closed   bool
	listener *listener                // nil until the first Subscribe
	subs     map[*subscription]bool   // all that are open
	byID     map[string]*subscription // by the node ids they are registered with
}

// New makes a broker. It neither listens nor asks the registry yet.
func New(o Options) (*Broker, error) {
	if o.Registry == nil {
		return nil, errors.New("http broker: no registry")
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return nil, fmt.Errorf("http broker: listen address: %w", err)
	}
	if o.MaxMessageSize < 0 {
		return nil, fmt.Errorf("http broker: message size limit %d is negative", o.MaxMessageSize)
	}
	if o.MaxMessageSize == 0 {
		o.MaxMessageSize = DefaultMaxMessageSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.TLS == nil {
		o.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see Options.TLS
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Broker{
		o: o, log: o.Log, ctx: ctx, stop: stop,
		client: newClient(o.TLS),
		peers:  newPeers(),
		subs:   map[*subscription]bool{},
		byID:   map[string]*subscription{},
	}
	b.lookups = newLookups(ctx, o.Registry, o.Log)
	b.roster = newRoster(o.Registry, o.Log)
	return b, nil
}

// newClient makes the client for deliveries: directly to the node, one answer,
// no redirects.
func newClient(config *tls.Config) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     config,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     60 * time.Second,
			DisableCompression:  true,
			// An answer carries nothing of interest.
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Ping asks the registry, which is all the engine there is.
func (b *Broker) Ping(ctx context.Context) error {
	if b.ctx.Err() != nil {
		return broker.ErrClosed
	}
	p, ok := b.o.Registry.(registry.Pinger)
	if !ok {
		return nil
	}
	if err := p.Ping(ctx); err != nil {
		return fmt.Errorf("http broker: registry: %w", err)
	}
	return nil
}

// Close ends all subscriptions, waits a moment for deliveries that are under
// way and frees everything.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	open := make([]*subscription, 0, len(b.subs))
	for s := range b.subs {
		open = append(open, s)
	}
	l := b.listener
	b.mu.Unlock()

	var leaving sync.WaitGroup
	for _, s := range open {
		leaving.Go(func() { _ = s.Close() })
	}
	leaving.Wait()
	b.drain()
	b.stop()
	if l != nil {
		l.close()
	}
	b.sends.Wait()
	b.tasks.Wait()
	b.lookups.wait()
	b.roster.wait()
	b.client.CloseIdleConnections()
	return nil
}

// drain waits a moment for what is being sent.
func (b *Broker) drain() {
	sent := make(chan struct{})
	go func() { b.sends.Wait(); close(sent) }()
	timer := time.NewTimer(leaveTimeout)
	defer timer.Stop()
	select {
	case <-sent:
	case <-timer.C:
	}
}
