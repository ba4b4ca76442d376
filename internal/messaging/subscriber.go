package messaging

import (
	"errors"
	"fmt"
	"sync"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// subscriber is a live one. The broker's goroutine puts deliveries into the
// buffer and never blocks, the writer sends them, and what the client sends is
// published.
type subscriber struct {
	*connection
	wake chan struct{} // a token: the buffer is not empty

	mu      sync.Mutex
	waiting []broker.Delivery
	bytes   int64
}

func newSubscriber(c *connection) *subscriber {
	return &subscriber{connection: c, wake: make(chan struct{}, 1)}
}

// deliver is the broker's handler. A subscriber whose buffer is full is cut,
// so that no other waits for it and it knows that it missed something.
func (s *subscriber) deliver(d broker.Delivery) {
	if _, ok := d.Header[onlyQueueField]; ok || internal(d.Topic, s.topic) {
		return
	}
	n, full := s.put(d)
	if !full {
		return
	}
	s.m.cut.Add(1)
	s.m.log.Warn("slow subscriber cut", "topic", s.topic, "queue", s.queue, "waiting", n)
	s.finish(ending{code: websocket.StatusPolicyViolation, reason: fmt.Sprintf("slow consumer: %d messages were waiting", n)})
}

// put buffers a message. It reports how many wait and that there is no room.
func (s *subscriber) put(d broker.Delivery) (n int, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(s.waiting)
	if s.ended.Err() != nil {
		return n, false
	}
	if n >= s.m.o.Buffer || n > 0 && s.bytes+size(d.Message) > s.m.o.MaxBuffered {
		return n, true
	}
	s.waiting = append(s.waiting, d)
	s.bytes += size(d.Message)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return n + 1, false
}

// take returns the next message to send. One that is cut gets no more.
func (s *subscriber) take() (d broker.Delivery, ok bool) {
	if end := s.ending(); end != nil && !end.drain {
		return d, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return d, false
	}
	d = s.waiting[0]
	s.waiting[0] = broker.Delivery{} // let the body go
	s.waiting = s.waiting[1:]
	s.bytes -= size(d.Message)
	return d, true
}

// received publishes what the client sends.
func (s *subscriber) received(body []byte) {
	err := s.m.publish(s.killed, s.topic, outgoing{Message: broker.Message{Body: body}})
	if err == nil {
		return
	}
	// A frame has no answer: the only way not to lose it in silence is to end
	// the connection.
	code := websocket.StatusTryAgainLater
	if errors.Is(err, broker.ErrTooLarge) {
		code = websocket.StatusMessageTooBig
	}
	s.finish(ending{code: code, reason: "not published: " + err.Error()})
}

// write sends what is in the buffer until the end.
func (s *subscriber) write() {
	var frame []byte
	for {
		if d, ok := s.take(); ok {
			frame = s.sendMessage(frame[:0], d)
			continue
		}
		select {
		case <-s.wake:
			continue
		case <-s.ended.Done():
		}
		if d, ok := s.take(); ok { // it came in just before the end
			frame = s.sendMessage(frame[:0], d)
			continue
		}
		return
	}
}

// sendMessage writes one message and returns the frame's memory to be used
// again.
func (s *subscriber) sendMessage(frame []byte, d broker.Delivery) []byte {
	frame, err := appendFrame(frame, d.Message)
	if d.Topic != s.topic && err == nil {
		frame, err = appendTopic(frame, d.Topic)
	}
	if err != nil {
		s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
		return nil
	}
	if s.send(frame) {
		s.m.delivered.Add(1)
		s.m.o.Topics.Delivered(s.topic)
	}
	if cap(frame) > 64<<10 {
		return nil // one large message is no reason to hold its memory for good
	}
	return frame
}
