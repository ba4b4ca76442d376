package httpbroker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/internal/mailbox"
	"github.com/micro/sidecar/registry"
)

// A handler that falls further behind than this loses what comes then; its
// publishers are told.
const (
	mailboxMessages = 4096
	mailboxBytes    = 64 << 20
)

// subscription is a [broker.Subscription].
type subscription struct {
	broker *Broker
	id     string
	topic  string
	queue  string
	box    *mailbox.Box
	ids    []string // of the nodes it is registered as
	close  func()   // leaves, once
	entry  *entry
}

// Subscribe starts the listener if it is the first, and registers the
// subscription in every generation.
func (b *Broker) Subscribe(ctx context.Context, topic string, o broker.SubscribeOptions, h broker.Handler) (broker.Subscription, error) {
	if err := check(ctx, topic); err != nil {
		return nil, fmt.Errorf("http broker: subscribe: %w", err)
	}
	if o.Queue == broadcast || !utf8.ValidString(o.Queue) {
		return nil, fmt.Errorf("http broker: subscribe: %q cannot be the name of a queue", o.Queue)
	}
	if !b.begin() {
		return nil, broker.ErrClosed
	}
	defer b.sends.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)()
	s := &subscription{broker: b, id: rand.Text(), topic: topic, queue: o.Queue}
	s.close = sync.OnceFunc(s.leave)
	services, err := b.admit(s, h)
	if err != nil {
		return nil, err
	}
	e, err := b.roster.add(ctx, services)
	if err != nil {
		s.close()
		if b.ctx.Err() != nil {
			return nil, broker.ErrClosed
		}
		return nil, fmt.Errorf("http broker: subscribe: %w", err)
	}
	if !b.enter(s, e) {
		b.roster.remove(e)
		return nil, broker.ErrClosed
	}
	return s, nil
}

// check refuses what the wire cannot hold: JSON carries text only.
func check(ctx context.Context, topic string) error {
	switch {
	case topic == "":
		return errors.New("the topic is empty")
	case !utf8.ValidString(topic):
		return fmt.Errorf("the topic %q is not valid UTF-8", topic)
	}
	return ctx.Err()
}

// admit makes the subscription known to the listener, before any publisher can
// know of it, and returns what is to be registered.
func (b *Broker) admit(s *subscription, h broker.Handler) ([]registry.Service, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, broker.ErrClosed
	}
	if err := b.listen(); err != nil {
		return nil, fmt.Errorf("http broker: %w", err)
	}
	s.box = mailbox.New(h, mailbox.Limits{Messages: mailboxMessages, Bytes: mailboxBytes})
	var services []registry.Service
	for i, g := range generations() {
		service := g.registration(i, s, b.listener.host, b.listener.port)
		services = append(services, service)
		s.ids = append(s.ids, service.Nodes[0].ID)
		b.byID[service.Nodes[0].ID] = s
	}
	b.subs[s] = true
	return services, nil
}

// enter hands the registration to the subscription, unless it was closed with
// the broker in the meantime.
func (b *Broker) enter(s *subscription, e *entry) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.entry = e
	return b.subs[s]
}

// Close ends the subscription here first, so that publishers who do not know
// yet are refused and may turn to another member of the queue, and then in the
// registry.
func (s *subscription) Close() error {
	s.close()
	return nil
}

func (s *subscription) leave() {
	b := s.broker
	b.mu.Lock()
	delete(b.subs, s)
	for _, id := range s.ids {
		delete(b.byID, id)
	}
	e := s.entry
	b.mu.Unlock()
	s.box.Close()
	if e != nil {
		b.roster.remove(e)
	}
}
