package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// session is a durable subscriber's connection: each message is held until the
// client says what became of it.
type session struct {
	*connection
	member broker.Member

	mu     sync.Mutex
	held   map[string]*broker.Held // what the client has, by ID
	bytes  int64                   // of these
	worked time.Time               // when it last settled one, or got one after it had none
	left   bool
}

// write sends messages as they come, until the end: those that are there go
// out in one write.
func (s *session) write() {
	next := func() (*broker.Held, bool) { return nil, false }
	if e, ok := s.member.(broker.Eager); ok {
		next = e.Next
	}
	var b deliveries
	for {
		h, err := s.member.Receive(s.ended)
		if errors.Is(err, broker.ErrLapsed) { // of an ordered queue: its turn comes again
			continue
		}
		if err != nil {
			if s.ended.Err() == nil {
				s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
			}
			return
		}
		for ok := true; ok; {
			if err := s.add(&b, h); err != nil {
				if !errors.Is(err, errLeft) {
					s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
				}
				return
			}
			if len(b.frames) >= batchSize/2 {
				break // before next: what it returns must be sent
			}
			h, ok = next()
		}
		if len(b.topics) > 0 && s.send(b.frames) {
			s.m.delivered.Add(int64(len(b.topics)))
			for _, topic := range b.topics {
				s.m.o.Topics.Delivered(topic, 1)
			}
		}
		b.reset()
	}
}

// deliveries are the frames of one write.
type deliveries struct {
	frames, text []byte
	topics       []string // one a frame
}

// reset makes it empty. One large message is no reason to hold its memory for good.
func (b *deliveries) reset() {
	if cap(b.frames) > batchSize {
		b.frames = nil
	}
	b.frames, b.topics = b.frames[:0], b.topics[:0]
}

// errLeft says that the session is over and its messages are given back.
var errLeft = errors.New("the subscriber has left")

// add adds a message, which the client has from now on, unless it is not for it.
func (s *session) add(b *deliveries, h *broker.Held) (err error) {
	if passedOver(h, s.topic, s.queue) {
		_ = h.Ack(s.ended) // else it comes again
		return nil
	}
	delete(h.Header, onlyQueueField)
	if !s.take(h) { // leave returns it
		return errLeft
	}
	b.text, err = appendDelivery(b.text[:0], h)
	if h.Topic != s.topic && err == nil {
		b.text, err = appendTopic(b.text, h.Topic)
	}
	if err != nil {
		return err
	}
	b.frames = appendTextFrame(b.frames, b.text)
	if cap(b.text) > batchSize { // the write may take long
		b.text = nil
	}
	b.topics = append(b.topics, h.Topic)
	return nil
}

// take notes that the client has a message. One that was delivered before and
// ran out of time is forgotten: the ID means the new delivery.
func (s *session) take(h *broker.Held) bool {
	if !s.note(h) {
		return false
	}
	s.m.durables.relieve()
	return true
}

func (s *session) note(h *broker.Held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return false
	}
	if len(s.held) >= 2*s.prefetch { // of a client that lets everything run out of time
		for id, old := range s.held {
			if !old.Fresh() {
				s.remove(id)
			}
		}
	}
	s.remove(h.ID)
	s.held[h.ID] = h
	s.weigh(size(h.Message))
	return true
}

// remove forgets what the client has under the ID, if anything. s.mu is held.
func (s *session) remove(id string) {
	if h := s.held[id]; h != nil {
		delete(s.held, id)
		s.weigh(-size(h.Message))
	}
}

// weigh notes that so many bytes more are held. s.mu is held.
func (s *session) weigh(n int64) {
	if s.left { // they count no more
		return
	}
	if s.bytes == 0 || n < 0 {
		s.worked = time.Now()
	}
	s.bytes += n
	s.m.durables.bytes.Add(n)
}

// leave gives back what the client has not settled, at once. What a client had
// that is gone counts as an attempt, a sidecar that stops does not.
func (s *session) leave() {
	s.mu.Lock()
	s.unload()
	held := s.held
	s.held = nil
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), s.m.o.Timeout)
	defer cancel()
	// First: what is given back shall not come here again.
	if err := s.member.Drain(ctx); err != nil {
		s.m.log.Warn("messages could not be given back: they come again when their time is over", "error", err)
	}
	if end := s.ending(); end.code != websocket.StatusGoingAway {
		var all sync.WaitGroup
		for _, h := range held {
			all.Go(func() { _ = h.Nack(ctx, 0) }) // what fails is returned below, or comes when its time is over
		}
		all.Wait()
	}
	s.m.leaveQueue(s.member)
}

// received does what a frame of the client says. What is wrong with it is
// answered, and the connection goes on.
func (s *session) received(data []byte) {
	c, err := parseCommand(data)
	if err != nil {
		s.complain(c.ID, err)
		return
	}
	ctx, cancel := context.WithTimeout(s.killed, s.m.o.Timeout)
	defer cancel()
	if c.Verb == "Publish" {
		s.publish(ctx, c)
		return
	}
	s.mu.Lock()
	h := s.held[c.ID]
	s.mu.Unlock()
	if h == nil {
		s.complain(c.ID, errors.New("no message with this Id is held: it was settled before, it ran out of time, or it never came"))
		return
	}
	switch c.Verb {
	case "Ack":
		err = h.Ack(ctx)
	case "Nack":
		err = h.Nack(ctx, c.Delay)
	case "Progress":
		err = h.Extend(ctx)
	case "Term":
		err = s.term(ctx, h, c.Reason)
	}
	if c.Verb != "Progress" && err == nil || errors.Is(err, broker.ErrLapsed) || errors.Is(err, broker.ErrSettled) {
		s.forget(h)
	}
	if err != nil {
		s.complain(c.ID, err)
	}
}

func (s *session) term(ctx context.Context, h *broker.Held, reason string) error {
	d, err := s.m.durable()
	if err != nil {
		return err
	}
	if reason == "" {
		reason = "the subscriber said so"
	}
	return s.m.bury(ctx, d, h, s.queue, "", reason)
}

// forget removes a message that is settled, unless the ID means another
// delivery by now.
func (s *session) forget(h *broker.Held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[h.ID] == h {
		s.remove(h.ID)
	}
}

// publish publishes to the topic. The client is told of a failure, and of the
// success when it gave the message an Id.
func (s *session) publish(ctx context.Context, c command) {
	if int64(len(c.Message.Body)) > s.m.o.MaxBodySize {
		s.complain(c.ID, fmt.Errorf("not published: the message is larger than %d bytes", s.m.o.MaxBodySize))
		return
	}
	out := outgoing{Message: c.Message, id: c.ID, delay: c.Delay}
	if out.id == "" {
		out.id = c.Message.Header["Micro-Id"]
	}
	if err := s.m.publish(ctx, s.topic, out); err != nil {
		s.complain(c.ID, fmt.Errorf("not published: %w", err))
		return
	}
	if c.ID != "" {
		s.answer(map[string]string{"Published": c.ID})
	}
}

// complain sends an error frame.
func (s *session) complain(id string, err error) {
	text := map[string]string{"Error": clip(err.Error())}
	if id != "" {
		text["Id"] = id
	}
	s.answer(text)
}

func (s *session) answer(fields map[string]string) {
	text, err := json.Marshal(fields)
	if err != nil { // it cannot: they are strings
		return
	}
	s.send(appendTextFrame(nil, text))
}
