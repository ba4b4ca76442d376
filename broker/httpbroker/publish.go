package httpbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/registry"
)

// target is a subscriber that was looked up.
type target struct {
	generation int
	node       node
	secure     bool
	peer       *peer
}

// audience is who gets a message: every one of all, and one of each queue.
type audience struct {
	all    []target
	queues map[string][]target
}

// Publish looks the subscribers up and sends each the message. It returns when
// they have answered, or after a moment: deliveries to subscribers that take
// longer go on. The error means that nothing was sent or that ctx ended. A
// subscriber that fails is no error, and neither is that there are none.
//
// Messages that are published one after the other reach each subscriber in
// that order, unless it takes longer than that moment to answer.
func (b *Broker) Publish(ctx context.Context, topic string, m broker.Message) error {
	if err := check(ctx, topic); err != nil {
		return fmt.Errorf("http broker: publish: %w", err)
	}
	if int64(len(m.Body)) > b.o.MaxMessageSize {
		return fmt.Errorf("http broker: publish: %w: %d bytes, the limit is %d", broker.ErrTooLarge, len(m.Body), b.o.MaxMessageSize)
	}
	if !b.begin() {
		return broker.ErrClosed
	}
	defer b.sends.Done()
	audience, err := b.audience(ctx, topic)
	if err != nil {
		return fmt.Errorf("http broker: publish: %w", err)
	}
	payloads, err := payloads(audience, topic, m)
	if err != nil {
		return fmt.Errorf("http broker: publish: %w", err)
	}
	var sends sync.WaitGroup
	for _, t := range audience.all {
		sends.Go(func() { b.deliver(ctx, t, payloads[t.generation]) })
	}
	for _, members := range audience.queues {
		sends.Go(func() { b.deliverToOne(ctx, members, payloads) })
	}
	sends.Wait()
	return ctx.Err()
}

// begin counts a call as one that Close waits for, unless the broker is closed.
func (b *Broker) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.sends.Add(1)
	return true
}

// audience looks up the subscribers of all generations.
func (b *Broker) audience(ctx context.Context, topic string) (audience, error) {
	generations := generations()
	var services [len(generations)][]registry.Service
	var errs [len(generations)]error
	var asks sync.WaitGroup
	for i, g := range generations {
		asks.Go(func() { services[i], errs[i] = b.lookups.get(ctx, g.name(topic)) })
	}
	asks.Wait()
	if err := ctx.Err(); err != nil {
		return audience{}, err
	}
	// One generation of which nothing is known may be the one that listens.
	if err := errors.Join(errs[:]...); err != nil {
		return audience{}, err
	}
	return b.assemble(topic, services[:]), nil
}

// assemble sorts out who gets the message. A subscription that is registered
// in several generations is served once.
func (b *Broker) assemble(topic string, services [][]registry.Service) audience {
	out := audience{queues: map[string][]target{}}
	seen := map[string]bool{}
	now := time.Now()
	for i, g := range generations() {
		for _, s := range services[i] {
			for _, n := range s.Nodes {
				if !g.serves(n, topic) {
					continue
				}
				if id := n.Metadata[subscriptionKey]; id != "" {
					if seen[id] {
						continue
					}
					seen[id] = true
				}
				id := node{addr: n.HostPort(), id: n.ID}
				t := target{generation: i, node: id, secure: n.Metadata[secureKey] == "true", peer: b.peers.get(id, now)}
				if s.Version == broadcast {
					out.all = append(out.all, t)
				} else {
					out.queues[s.Version] = append(out.queues[s.Version], t)
				}
			}
		}
	}
	return out
}

// payloads encodes the message once for each generation that needs it.
func payloads(a audience, topic string, m broker.Message) (out [3][]byte, err error) {
	need := func(t target) {
		if err == nil && out[t.generation] == nil {
			out[t.generation], err = encode(generations()[t.generation], topic, m)
		}
	}
	for _, t := range a.all {
		need(t)
	}
	for _, members := range a.queues {
		for _, t := range members {
			need(t)
		}
	}
	return out, err
}

// deliverToOne gives the message to one member of a queue: a random one of the
// healthiest, and another only if that one certainly did not take it.
func (b *Broker) deliverToOne(ctx context.Context, members []target, payloads [3][]byte) {
	now := time.Now()
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	health := make(map[node]int, len(members))
	for _, t := range members {
		health[t.node] = t.peer.health(now)
	}
	slices.SortStableFunc(members, func(a, c target) int { return cmp.Compare(health[a.node], health[c.node]) })
	for _, t := range members {
		if b.send(ctx, t, payloads[t.generation]).mayHaveArrived() || ctx.Err() != nil {
			return
		}
	}
}

// deliver gives the message to one subscriber, unless it was dead a moment ago.
func (b *Broker) deliver(ctx context.Context, t target, payload []byte) {
	if t.peer.health(time.Now()) < 2 {
		b.send(ctx, t, payload)
	}
}
