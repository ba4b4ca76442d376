package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// session is a durable subscriber's connection: each message is held until the
// client says what became of it.
type session struct {
	*connection
	member broker.Member

	mu   sync.Mutex
	held map[string]*broker.Held // what the client has, by ID
	left bool
}

// eager is implemented by members that can tell what is there already.
type eager interface {
	// Next returns a message that has arrived, or false: it does not wait.
	Next() (*broker.Held, bool)
}

// write sends messages as they come, until the end: those that are there go
// out in one write.
func (s *session) write() {
	next := func() (*broker.Held, bool) { return nil, false }
	if e, ok := s.member.(eager); ok {
		next = e.Next
	}
	var frames, text []byte
	for {
		h, err := s.member.Receive(s.ended)
		if err != nil {
			if s.ended.Err() == nil {
				s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
			}
			return
		}
		n := 0
		for ok := true; ok; {
			if text, err = s.encode(text[:0], h); err != nil {
				if !errors.Is(err, errLeft) {
					s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
				}
				return
			}
			if len(text) > 0 {
				frames = appendTextFrame(frames, text)
				n++
			}
			if len(frames) >= batchSize/2 {
				break // before next: what it returns must be sent
			}
			h, ok = next()
		}
		if n > 0 && s.send(frames) {
			s.m.delivered.Add(int64(n))
		}
		if frames = frames[:0]; cap(frames) > batchSize {
			frames, text = nil, nil
		}
	}
}

// errLeft says that the session is over and its messages are given back.
var errLeft = errors.New("the subscriber has left")

// encode appends the text of a message, which the client has from now on;
// nothing when the message is not for it.
func (s *session) encode(dst []byte, h *broker.Held) ([]byte, error) {
	if internal(h.Topic, s.topic) || !forThisQueue(h.Header, s.queue) {
		_ = h.Ack(s.ended) // else it comes again
		return dst, nil
	}
	if !s.take(h) { // leave returns it
		return dst, errLeft
	}
	delete(h.Header, onlyQueueField)
	dst, err := appendDelivery(dst, h)
	if h.Topic != s.topic && err == nil {
		dst, err = appendTopic(dst, h.Topic)
	}
	s.m.o.Topics.Delivered(h.Topic, 1)
	return dst, err
}

// take notes that the client has a message. One that was delivered before and
// ran out of time is forgotten: the ID means the new delivery.
func (s *session) take(h *broker.Held) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return false
	}
	if len(s.held) >= 2*s.prefetch { // of a client that lets everything run out of time
		for id, old := range s.held {
			if !old.Fresh() {
				delete(s.held, id)
			}
		}
	}
	s.held[h.ID] = h
	return true
}

// leave gives back what the client has not settled, at once. What a client had
// that is gone counts as an attempt, a sidecar that stops does not.
func (s *session) leave() {
	s.mu.Lock()
	s.left = true
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
	_ = s.m.leaveQueue(s.member)
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
		delete(s.held, h.ID)
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
	text := map[string]string{"Error": err.Error()}
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
