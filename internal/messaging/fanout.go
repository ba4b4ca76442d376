package messaging

import (
	"context"
	"sync"

	"github.com/micro/sidecar/broker"
)

// fanout shares the engine's subscription of a topic among the live
// subscribers of this sidecar: a message comes from the engine once and is
// encoded once, however many there are. A queue's subscribers are not shared:
// the engine must see each, for it divides the messages among them.
type fanout struct {
	mu     sync.Mutex
	topics map[string]*shared
}

// shared is the subscription of a topic.
type shared struct {
	opened       chan struct{} // closed when subscription or err is set
	subscription broker.Subscription
	err          error

	users int // who has joined or is about to; fanout.mu is held

	mu      sync.Mutex // held while a message is handed out
	members map[*subscriber]struct{}
}

// join makes s a receiver of its topic, which it is when join returns. Who is
// not the first waits for the first's subscription. It may get a message that
// was published just before and is still on its way from the engine.
func (f *fanout) join(ctx context.Context, b broker.Broker, s *subscriber) (leave func(), err error) {
	for {
		at, first := f.enter(s.topic)
		leave := func() { f.leave(s.topic, at, s) }
		if first {
			at.add(s)
			at.subscription, at.err = b.Subscribe(ctx, s.topic, broker.SubscribeOptions{}, at.deliver)
			close(at.opened)
			if at.err != nil {
				leave()
				return nil, at.err //nolint:wrapcheck // the caller says what it did
			}
			return leave, nil
		}
		select {
		case <-at.opened:
		case <-ctx.Done():
			leave()
			return nil, ctx.Err() //nolint:wrapcheck // the caller says what it did
		}
		if at.err == nil {
			at.add(s)
			return leave, nil
		}
		leave() // the first may have given up: try it oneself
	}
}

// enter finds the subscription or begins one.
func (f *fanout) enter(topic string) (at *shared, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at = f.topics[topic]
	if at == nil {
		if f.topics == nil {
			f.topics = map[string]*shared{}
		}
		at, first = &shared{opened: make(chan struct{}), members: map[*subscriber]struct{}{}}, true
		f.topics[topic] = at
	}
	at.users++
	return at, first
}

// leave ends the subscription with its last user. It is called once for each.
func (f *fanout) leave(topic string, at *shared, s *subscriber) {
	at.remove(s)
	f.mu.Lock()
	at.users--
	last := at.users == 0
	if f.topics[topic] == at && (last || at.failed()) {
		delete(f.topics, topic)
	}
	f.mu.Unlock()
	if last && at.subscription != nil {
		_ = at.subscription.Close()
	}
}

// failed tells that there is nothing to wait for any more.
func (at *shared) failed() bool {
	select {
	case <-at.opened:
		return at.err != nil
	default:
		return false
	}
}

func (at *shared) add(s *subscriber) {
	at.mu.Lock()
	defer at.mu.Unlock()
	at.members[s] = struct{}{}
}

func (at *shared) remove(s *subscriber) {
	at.mu.Lock()
	defer at.mu.Unlock()
	delete(at.members, s)
}

// deliver is the broker's handler. Nobody blocks it.
func (at *shared) deliver(d broker.Delivery) {
	at.mu.Lock()
	defer at.mu.Unlock()
	var f *encoded
	for s := range at.members {
		if f == nil { // they have the same topic, and so the same frame
			f = s.encode(d)
		}
		if f == nil {
			return
		}
		s.deliver(f)
	}
}
