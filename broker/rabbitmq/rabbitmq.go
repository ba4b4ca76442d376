// Package rabbitmq is the broker on RabbitMQ, of version 3.10 or later. It
// speaks AMQP 0-9-1 and owns the names of its exchanges and queues there. Live
// messages go both ways between it and go-micro's own RabbitMQ broker.
//
// Everything is published to a durable exchange of topics, "micro.durable".
// go-micro's, "micro", is not durable, so that a durable queue could lose its
// place in it with a restart; the two are bound to each other, and RabbitMQ
// gives a queue each message once, whichever way it comes.
package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/openset"
	"github.com/micro/sidecar/internal/engineurl"
)

const (
	// MaxMessage is the largest body in bytes. It is what RabbitMQ 4 takes
	// unless it is told otherwise.
	MaxMessage = 16 << 20

	dialTimeout = 5 * time.Second // of one host, until it has let us in
	callTimeout = 3 * time.Second // of what nobody gave a time
	heartbeat   = 10 * time.Second
)

// Broker implements [broker.Broker], [broker.Durable], [broker.Queues],
// [broker.Deduplicator], [broker.Wildcards] and [broker.Pinger].
// It is safe for concurrent use.
type Broker struct {
	address address
	log     *slog.Logger
	// RabbitMQ stops to read from a connection that publishes when it is full:
	// what is acknowledged goes another way.
	consuming *link
	publisher *publisher
	declaring chan struct{} // held by the one who has a lock, see options.go

	open openset.Set

	once    once    // what was published with an ID
	repeats repeats // what members have had of that

	mu    sync.Mutex
	known map[string]durableQueue // by name, what was declared lately
}

// address is what an address says.
type address struct {
	hosts          []string
	tls            *tls.Config // nil for none
	user, password string
	vhost          string
	exchange       string // go-micro's
	kind           string // of new durable queues
}

// parse reads an address: amqp://[USER:PASSWORD@]HOST:PORT[/VHOST], amqps://
// for TLS, several hosts of one cluster, and ?exchange=NAME&queue_type=TYPE.
func parse(u *url.URL) (address, error) {
	if u == nil {
		u = &url.URL{Scheme: "amqp", Host: "127.0.0.1:5672"}
	}
	port := "5672"
	switch u.Scheme {
	case "amqp", "rabbitmq":
	case "amqps":
		port = "5671"
	default:
		return address{}, fmt.Errorf("scheme %q: expected amqp or amqps", u.Scheme)
	}
	hosts, err := engineurl.Hosts(u, port)
	if err != nil {
		return address{}, err
	}
	p := engineurl.Query(u)
	a := address{hosts: hosts, user: "guest", password: "guest", vhost: "/", exchange: p.String("exchange", "micro")}
	a.tls = engineurl.TLS(p, u.Scheme == "amqps")
	if a.kind = p.Choice("queue_type", "auto", amqp.QueueTypeQuorum, amqp.QueueTypeClassic); a.kind == "auto" {
		a.kind = defaultKind(len(hosts))
	}
	if len(a.exchange) > 200 || strings.HasPrefix(a.exchange, "amq.") || strings.ContainsAny(a.exchange, "\r\n") {
		return address{}, fmt.Errorf("parameter exchange: expected a name of at most 200 bytes that does not begin with amq., got %.100q", a.exchange)
	}
	if name, ok := strings.CutPrefix(u.EscapedPath(), "/"); ok && name != "" {
		if a.vhost, err = url.PathUnescape(name); err != nil || strings.Contains(name, "/") {
			return address{}, fmt.Errorf("path %q: expected the name of a virtual host, with / written as %%2F", u.Path)
		}
	}
	if u.User != nil {
		a.user = u.User.Username()
		a.password, _ = u.User.Password()
	}
	return a, p.Err()
}

// CheckAddress says what is wrong with an address.
func CheckAddress(u *url.URL) error {
	_, err := parse(u)
	return err
}

// Open returns a broker on the server at the address; nil is the one of this
// machine. It does not wait for the server: what cannot reach it says so. log
// may be nil.
func Open(u *url.URL, log *slog.Logger) (*Broker, error) {
	a, err := parse(u)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq broker: %w", err)
	}
	if log == nil {
		log = slog.Default()
	}
	return &Broker{
		address: a, log: log, declaring: make(chan struct{}, 1), known: map[string]durableQueue{},
		consuming: newLink(a), publisher: newPublisher(newLink(a), a.durable()),
	}, nil
}

// durable is the exchange that everything is published to.
func (a address) durable() string { return a.exchange + ".durable" }

// Publish implements [broker.Broker]. When the connection breaks or the server
// runs full before it has answered, the message may have been taken.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	key, p, err := b.encode(topic, m)
	if err == nil {
		err = b.publisher.send(ctx, b.publisher.exchange, key, p)
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// encode makes a message, if there is something to publish.
func (b *Broker) encode(topic string, m broker.Message) (key string, p amqp.Publishing, err error) {
	switch {
	case topic == "":
		return "", p, errors.New("the topic is empty")
	case b.open.Closed():
		return "", p, broker.ErrClosed
	}
	return encode(topic, m)
}

// Ping implements [broker.Pinger].
func (b *Broker) Ping(ctx context.Context) error {
	if b.open.Closed() {
		return broker.ErrClosed
	}
	if err := b.publisher.ping(ctx); err != nil {
		return fmt.Errorf("the broker's RabbitMQ server cannot be reached: %w", err)
	}
	return nil
}

// Close ends all subscriptions and waits for their handlers.
func (b *Broker) Close() error {
	all, first := b.open.Close()
	if !first {
		return nil
	}
	var ended sync.WaitGroup // each waits for an answer of the server's
	for _, e := range all {
		ended.Go(e.End)
	}
	ended.Wait()
	ended.Go(b.publisher.link.close)
	ended.Go(b.consuming.close)
	ended.Wait()
	return nil
}
