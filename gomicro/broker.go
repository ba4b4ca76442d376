package gomicro

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	micro "go-micro.dev/v5/broker"
	microregistry "go-micro.dev/v5/registry"

	"github.com/micro/sidecar/broker"
)

// BrokerAdapter is a broker of go-micro's as one of ours: live, at most once. Its
// methods return when their context ends, also while go-micro does not.
//
// However many subscriptions a topic has here, go-micro has one for each
// queue, and one for those without: some of its brokers know no queues, or
// mix up two subscriptions to one topic.
type BrokerAdapter struct {
	theirs  micro.Broker
	options Options
	calls   calls
	odd     quiet

	mu     sync.Mutex
	closed bool
	groups map[address]*group
}

// topicName is the header by which servers of go-micro find the handler of a
// message. It is the envelope's, not the message's: some brokers of go-micro put
// it in, and here it is with all of them.
const topicName = "Micro-Topic"

// address is what go-micro has a subscription for.
type address struct{ topic, queue string }

// NewBroker adapts b and connects it, within ctx.
func NewBroker(ctx context.Context, b micro.Broker, o Options) (*BrokerAdapter, error) {
	out := &BrokerAdapter{theirs: b, options: o.withDefaults(), calls: newCalls(), groups: map[address]*group{}}
	_, err := do(ctx, out.calls, "connect", func() (none struct{}, err error) { return none, b.Connect() },
		func(struct{}) { _ = b.Disconnect() }) // nobody will use it
	if err != nil {
		return nil, fmt.Errorf("go-micro's %s broker: %w", b.String(), err)
	}
	return out, nil
}

// forbidden says why a topic cannot be used. NATS takes a topic as it is, and
// has subjects that are commands to the server or somebody's answers.
func (b *BrokerAdapter) forbidden(topic string) error {
	switch {
	case topic == "":
		return errors.New("the topic is empty")
	case b.theirs.String() != "nats":
		return nil
	case strings.HasPrefix(topic, "$"), strings.HasPrefix(topic, "_INBOX"), strings.HasPrefix(topic, "micro.nats."):
		return fmt.Errorf("topic %q is one of the engine's own", topic)
	case strings.ContainsAny(topic, "*> \t\r\n"):
		return fmt.Errorf("topic %q: go-micro gives it to NATS as it is, where * > and blanks have a meaning", topic)
	}
	return nil
}

// Publish implements [broker.Broker]. It returns nil when go-micro has taken the
// message; of what becomes of it then, go-micro tells nothing.
func (b *BrokerAdapter) Publish(ctx context.Context, topic string, m broker.Message) error {
	if err := b.forbidden(topic); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if b.options.MaxBodySize > 0 && int64(len(m.Body)) > b.options.MaxBodySize {
		return broker.ErrTooLarge
	}
	if b.isClosed() {
		return broker.ErrClosed
	}
	own := copyMessage(m) // the caller has its message back before go-micro may be done with it
	if own.Header == nil {
		own.Header = map[string]string{}
	}
	if own.Header[topicName] == "" {
		own.Header[topicName] = topic
	}
	_, err := do(ctx, b.calls, "publish", func() (none struct{}, err error) {
		return none, b.theirs.Publish(topic, &micro.Message{Header: own.Header, Body: own.Body})
	}, nil)
	switch {
	case errors.Is(err, microregistry.ErrNotFound): // the http broker's way to say that nobody listens
		return nil
	case err != nil && strings.Contains(err.Error(), "maximum payload"):
		return fmt.Errorf("%w: %w", broker.ErrTooLarge, err)
	case err != nil && b.isClosed():
		return broker.ErrClosed
	}
	return err
}

func (b *BrokerAdapter) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func copyMessage(m broker.Message) broker.Message {
	return broker.Message{Header: copyOf(m.Header), Body: append([]byte{}, m.Body...)}
}

// Subscribe implements [broker.Broker].
func (b *BrokerAdapter) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	if err := b.forbidden(topic); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		g, first, err := b.join(address{topic, o.Queue})
		if err != nil {
			return nil, err
		}
		if first {
			g.start(ctx, b)
		}
		select {
		case <-g.ready:
		case <-ctx.Done():
			return nil, fmt.Errorf("subscribe: %w", ctx.Err())
		}
		if g.err == nil {
			if s := g.add(b, h); s != nil {
				return s, nil
			}
		} else if !ended(g.err) || ctx.Err() != nil {
			return nil, g.err
		}
		// Its last member is leaving, or its first one had no time.
		select {
		case <-g.gone:
		case <-ctx.Done():
			return nil, fmt.Errorf("subscribe: %w", ctx.Err())
		}
	}
}

// ended reports whether the error is that of a context.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// join returns the group of an address, and whether it is a new one, which the caller starts.
func (b *BrokerAdapter) join(at address) (g *group, first bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, false, broker.ErrClosed
	}
	if g = b.groups[at]; g != nil {
		return g, false, nil
	}
	g = &group{at: at, ready: make(chan struct{}), gone: make(chan struct{})}
	b.groups[at] = g
	return g, true, nil
}

// leave takes a group out, if it is still the one at its address.
func (b *BrokerAdapter) leave(g *group) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.groups[g.at] == g {
		delete(b.groups, g.at)
	}
	close(g.gone)
}

// closeTime bounds what go-micro may take to let go.
const closeTime = 5 * time.Second

// Close implements [broker.Broker].
func (b *BrokerAdapter) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	groups := b.groups
	b.groups = map[address]*group{}
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	var errs []error
	for _, g := range groups {
		errs = append(errs, g.end(ctx, b))
	}
	_, err := do(ctx, b.calls, "disconnect", func() (none struct{}, err error) { return none, b.theirs.Disconnect() }, nil)
	return errors.Join(append(errs, err)...)
}
