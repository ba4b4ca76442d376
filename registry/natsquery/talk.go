package natsquery

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/microjson"
	"github.com/micro/sidecar/registry"
)

const (
	// answerTime is how long go-micro waits for answers, and so do we for a
	// service that is not known.
	answerTime = 100 * time.Millisecond
	// roundTime is how long everybody has to answer in a round of questions,
	// and interval the time between two of them.
	roundTime = time.Second
	interval  = 5 * time.Second
	// rounds is after how many without an answer a node is gone.
	rounds = 2
)

// result is go-micro's question and its announcement.
type result struct {
	Action  string             `json:"action"`
	Service *microjson.Service `json:"service"`
}

// announce tells everybody of changes, a node a message, and waits until the
// server has taken them.
func (r *Registry) announce(ctx context.Context, action string, s registry.Service) error {
	var messages [][]byte
	for _, n := range s.Nodes {
		data, err := json.Marshal(result{Action: action, Service: microjson.From(single(s, n))})
		if err != nil {
			return err
		}
		if len(data) > microjson.MaxSize {
			return fmt.Errorf("node %.100q: expected a registration of at most %d bytes, got %d", n.ID, microjson.MaxSize, len(data))
		}
		messages = append(messages, data)
	}
	_, err := link.Again(ctx, r.link, func(ctx context.Context) (struct{}, error) {
		for _, data := range messages {
			if err := r.conn.Publish(watchSubject, data); err != nil {
				return struct{}{}, err
			}
		}
		return struct{}{}, r.conn.FlushWithContext(ctx)
	})
	return r.conn.Explain(err)
}

// ask asks for a service, or with "" for all, and takes in what is answered
// within the time.
func (r *Registry) ask(ctx context.Context, name string, within time.Duration) error {
	question := result{Action: "list"}
	if name != "" {
		question = result{Action: "get", Service: &microjson.Service{Name: name}}
	}
	data, err := json.Marshal(question)
	if err != nil {
		return err
	}
	_, err = link.Once(ctx, r.link, func(ctx context.Context) (struct{}, error) {
		inbox := r.conn.NewInbox()
		answers, err := r.conn.Subscribe(inbox, r.answered)
		if err != nil {
			return struct{}{}, err
		}
		defer func() { _ = answers.Unsubscribe() }() // fails only when the connection is gone
		if err := r.conn.PublishRequest(querySubject, inbox, data); err != nil {
			return struct{}{}, err
		}
		if err := r.conn.FlushWithContext(ctx); err != nil {
			return struct{}{}, err
		}
		timer := time.NewTimer(within)
		defer timer.Stop()
		select {
		case <-timer.C:
			return struct{}{}, nil
		case <-ctx.Done():
			return struct{}{}, ctx.Err()
		}
	})
	return r.conn.Explain(err)
}

// asked answers for what was registered here.
func (r *Registry) asked(m *gonats.Msg) {
	var q result
	if m.Reply == "" || len(m.Data) > microjson.MaxSize || json.Unmarshal(m.Data, &q) != nil {
		return
	}
	var services []registry.Service
	r.mu.Lock()
	switch {
	case q.Action == "get" && q.Service != nil:
		services = r.own.group(q.Service.Name)
	case q.Action == "list":
		for name := range r.own {
			services = append(services, r.own.group(name)...)
		}
	}
	r.mu.Unlock()
	for _, s := range services {
		for _, n := range s.Nodes { // apart: they are put together again by version
			if data, err := microjson.Encode(single(s, n)); err == nil {
				_ = m.Respond(data) // who asked will ask again
			}
		}
	}
}

// answered takes in an answer.
func (r *Registry) answered(m *gonats.Msg) {
	s, err := microjson.Decode(m.Data)
	if err != nil {
		r.odd.Warn("registry: an answer that is no service is passed over", "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range s.Nodes {
		r.see(single(s, n))
	}
}

// told takes in an announcement.
func (r *Registry) told(m *gonats.Msg) {
	var news result
	err := fmt.Errorf("expected at most %d bytes, got %d", microjson.MaxSize, len(m.Data))
	if len(m.Data) <= microjson.MaxSize {
		err = json.Unmarshal(m.Data, &news)
	}
	if err == nil && news.Service == nil {
		err = fmt.Errorf("action %.20q without a service", news.Action)
	}
	if err != nil {
		r.odd.Warn("registry: an announcement that makes no sense is passed over", "error", err)
		return
	}
	if news.Action == "delete" { // by id alone, whatever the rest
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, n := range news.Service.Nodes {
			if n != nil {
				r.forget(news.Service.Name, n.ID)
			}
		}
		return
	}
	s, err := news.Service.Service()
	if err != nil {
		r.odd.Warn("registry: a service that makes no sense is passed over", "error", err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range s.Nodes {
		r.see(single(s, n))
	}
}

// see notes that a node lives; r.mu is held. What is ours is as it was
// registered here: an announcement may have been under way.
func (r *Registry) see(s registry.Service) {
	m := &member{service: s, last: time.Now(), round: r.round}
	if mine := r.own[s.Name][m.id()]; mine != nil {
		m.service, m.last = mine.service, mine.last
	}
	if before := r.all.put(m); before == nil || !equal(before.service, m.service) {
		r.notify(s.Name)
	}
}

// forget removes a node and returns it; r.mu is held.
func (r *Registry) forget(name, id string) *member {
	r.own.remove(name, id).stop()
	gone := r.all.remove(name, id)
	if gone != nil {
		r.notify(name)
	}
	return gone
}

// expire ends a node of ours whose time to live has run out.
func (r *Registry) expire(m *member) {
	r.mu.Lock()
	current := r.own[m.service.Name][m.id()] == m
	if current {
		r.forget(m.service.Name, m.id())
	}
	r.mu.Unlock()
	if current && r.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(r.ctx, roundTime)
		defer cancel()
		_ = r.announce(ctx, "delete", m.service) // who does not hear it will miss the answer
	}
}

// run asks everybody again and again.
func (r *Registry) run() {
	for {
		lost, err := r.link.Wait(r.ctx)
		if err != nil {
			return
		}
		r.refresh()
		select {
		case <-r.ctx.Done():
			return
		case <-lost: // then anew, at once
			r.disconnected()
		case <-time.After(interval - interval/5 + rand.N(interval/5)):
		}
	}
}

// refresh is one round: who did not answer in some of them is gone. A round
// that could not be asked does not count.
func (r *Registry) refresh() {
	r.mu.Lock()
	r.round++
	r.mu.Unlock()
	if err := r.ask(r.ctx, "", roundTime); err != nil {
		r.mu.Lock()
		r.round--
		r.mu.Unlock()
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, nodes := range r.all {
		for id, m := range nodes {
			if r.own[name][id] == nil && m.round <= r.round-rounds {
				r.forget(name, id)
			}
		}
	}
	if !r.ready {
		r.ready = true
		close(r.waiting)
	}
	for w := range r.watchers {
		if !w.live {
			w.live = true
			w.put("")
		}
	}
}
