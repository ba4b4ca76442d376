package messaging

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// subscriber is a live one. The broker's goroutine puts frames into the buffer
// and never blocks, the writer sends them, and what the client sends is
// published.
type subscriber struct {
	*connection
	wake chan struct{} // a token: the buffer is not empty

	mu      sync.Mutex
	waiting []*encoded
	bytes   int64
}

// encoded is a message as a WebSocket frame, which its receivers share.
type encoded struct {
	frame     []byte
	size      int64        // what it counts for in a buffer
	receivers atomic.Int32 // that have it in their buffers, or are sending it
}

func newSubscriber(c *connection) *subscriber {
	return &subscriber{connection: c, wake: make(chan struct{}, 1)}
}

// receive is the broker's handler for a subscriber that shares with none.
func (s *subscriber) receive(d broker.Delivery) {
	if f := s.encode(d); f != nil {
		s.deliver(f)
	}
}

// encode makes the frame of a message; nil when it is not meant for live
// subscribers of the topic.
func (s *subscriber) encode(d broker.Delivery) *encoded {
	if _, ok := d.Header[onlyQueueField]; ok || internal(d.Topic, s.topic) {
		return nil
	}
	buf := batches.Get().(*[]byte)
	defer batches.Put(buf)
	text, err := appendFrame((*buf)[:0], d.Message)
	if d.Topic != s.topic && err == nil {
		text, err = appendTopic(text, d.Topic)
	}
	if err != nil { // it cannot be: a header is made of strings
		s.m.log.Error("a message cannot be encoded", "topic", d.Topic, "error", err)
		return nil
	}
	return &encoded{frame: appendTextFrame(make([]byte, 0, len(text)+maxFrameHead), text), size: size(d.Message)}
}

// deliver buffers a frame. A subscriber whose buffer is full is cut, so that no
// other waits for it and it knows that it missed something.
func (s *subscriber) deliver(f *encoded) {
	if n, full := s.put(f); full {
		s.slow(fmt.Sprintf("slow consumer: %d messages were waiting", n), n)
		s.drop()
	}
	s.m.live.relieve()
}

// put buffers a frame. It reports how many wait and that there is no room.
func (s *subscriber) put(f *encoded) (n int, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(s.waiting)
	if s.ended.Err() != nil {
		return n, false
	}
	if n >= s.m.o.Buffer || n > 0 && s.bytes+f.size > s.m.o.MaxBuffered {
		return n, true
	}
	s.waiting = append(s.waiting, f)
	s.bytes += f.size
	s.m.live.hold(f)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return n + 1, false
}

// take appends the next frames to send to batch, as many as go into one write;
// who has sent them releases them. One that is cut gets no more.
func (s *subscriber) take(batch []*encoded) []*encoded {
	if end := s.ending(); end != nil && !end.drain {
		return batch
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, total := 0, 0
	for _, f := range s.waiting {
		if total += len(f.frame); n > 0 && total > batchSize {
			break
		}
		s.bytes -= f.size
		n++
	}
	batch = append(batch, s.waiting[:n]...)
	clear(s.waiting[:n]) // let the bodies go
	s.waiting = s.waiting[n:]
	return batch
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
	var batch []*encoded
	for {
		if batch = s.take(batch[:0]); len(batch) > 0 {
			s.sendAll(batch)
			clear(batch)
			continue
		}
		select {
		case <-s.wake:
			continue
		case <-s.ended.Done():
		}
		// What came in just before the end.
		if batch = s.take(batch[:0]); len(batch) == 0 {
			return
		}
		s.sendAll(batch)
	}
}

// sendAll writes frames at once.
func (s *subscriber) sendAll(batch []*encoded) {
	defer s.m.live.release(batch)
	if len(batch) == 1 {
		s.sent(s.send(batch[0].frame), 1)
		return
	}
	buf := batches.Get().(*[]byte)
	frames := (*buf)[:0]
	for _, f := range batch {
		frames = append(frames, f.frame...)
	}
	s.sent(s.send(frames), len(batch))
	*buf = frames[:0]
	batches.Put(buf)
}

// sent counts.
func (s *subscriber) sent(ok bool, n int) {
	if ok {
		s.m.delivered.Add(int64(n))
		s.m.o.Topics.Delivered(s.topic, n)
	}
}
