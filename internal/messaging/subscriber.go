package messaging

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
)

// cutGrace is how long a frame that is half sent may still take when its
// subscriber is being closed: a close frame cannot overtake it.
const cutGrace = 5 * time.Second

// ending says how a connection ends.
type ending struct {
	code   websocket.StatusCode
	reason string
	drain  bool // what waits is sent first
	gone   bool // there is nobody to tell
}

func goingAway() ending {
	return ending{code: websocket.StatusGoingAway, reason: "the sidecar is shutting down", drain: true}
}

// subscriber is one WebSocket connection. The broker's goroutine puts
// deliveries into the buffer and never blocks, the writer sends them, the
// reader publishes what the client sends, and a probe notices a dead client.
type subscriber struct {
	m *Messaging
	query
	wake    chan struct{} // a token: the buffer is not empty
	writing atomic.Bool   // a frame is being sent
	seen    atomic.Int64  // when the client was last heard, in Unix nanoseconds

	ended  context.Context // ends when end is set
	finish func(ending)    // sets end; only the first call counts
	killed context.Context // ends when the connection must not be waited for
	abort  context.CancelFunc

	mu      sync.Mutex
	waiting []broker.Message
	bytes   int64
	end     *ending
}

func newSubscriber(m *Messaging, q query) *subscriber {
	s := &subscriber{m: m, query: q, wake: make(chan struct{}, 1)}
	ended, cancel := context.WithCancel(context.Background())
	s.ended = ended
	s.finish = func(e ending) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.end != nil {
			return
		}
		s.end = &e
		if !e.drain {
			s.waiting, s.bytes = nil, 0
		}
		cancel()
	}
	s.killed, s.abort = context.WithCancel(context.Background())
	return s
}

// deliver is the broker's handler. A subscriber whose buffer is full is cut,
// so that no other waits for it and it knows that it missed something.
func (s *subscriber) deliver(d broker.Delivery) {
	n, full := s.put(d.Message)
	if !full {
		return
	}
	s.m.cut.Add(1)
	s.m.log.Warn("slow subscriber cut", "topic", s.topic, "queue", s.queue, "waiting", n)
	s.finish(ending{code: websocket.StatusPolicyViolation, reason: fmt.Sprintf("slow consumer: %d messages were waiting", n)})
}

// put buffers a message. It reports how many wait and that there is no room.
func (s *subscriber) put(m broker.Message) (n int, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(s.waiting)
	if s.end != nil {
		return n, false
	}
	if n >= s.m.o.Buffer || n > 0 && s.bytes+size(m) > s.m.o.MaxBuffered {
		return n, true
	}
	s.waiting = append(s.waiting, m)
	s.bytes += size(m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return n + 1, false
}

// take returns the next message to send.
func (s *subscriber) take() (m broker.Message, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return m, false
	}
	m = s.waiting[0]
	s.waiting[0] = broker.Message{} // let the body go
	s.waiting = s.waiting[1:]
	s.bytes -= size(m)
	return m, true
}

// run serves the connection until it ends.
func (s *subscriber) run(conn *websocket.Conn, subscription broker.Subscription) ending {
	var tasks sync.WaitGroup
	tasks.Go(func() {
		// At once, whatever the writer is doing: a queue's messages must not
		// come to who drops them.
		<-s.ended.Done()
		_ = subscription.Close()
	})
	tasks.Go(func() { s.write(conn) })
	tasks.Go(func() { s.probe(conn) })
	stopKilling := context.AfterFunc(s.killed, func() { _ = conn.CloseNow() })
	s.read(conn)
	tasks.Wait()
	stopKilling()
	s.abort()
	_ = conn.CloseNow()
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.end
}

// read publishes what the client sends until the connection ends.
func (s *subscriber) read(conn *websocket.Conn) {
	for {
		_, body, err := conn.Read(s.killed)
		if err != nil {
			s.finish(ending{gone: true, reason: err.Error()})
			return
		}
		s.seen.Store(time.Now().UnixNano())
		if err := s.m.publish(s.killed, s.topic, broker.Message{Body: body}); err != nil {
			// A frame has no answer: the only way not to lose it in silence is
			// to end the connection.
			code := websocket.StatusTryAgainLater
			if errors.Is(err, broker.ErrTooLarge) {
				code = websocket.StatusMessageTooBig
			}
			s.finish(ending{code: code, reason: "not published: " + err.Error()})
			return
		}
	}
}

// write sends what is in the buffer until the end, and closes the connection.
func (s *subscriber) write(conn *websocket.Conn) {
	var frame []byte
	for {
		if message, ok := s.take(); ok {
			frame = s.send(conn, frame[:0], message)
			continue
		}
		select {
		case <-s.wake:
			continue
		case <-s.ended.Done():
		}
		if message, ok := s.take(); ok { // it came in just before the end
			frame = s.send(conn, frame[:0], message)
			continue
		}
		s.close(conn)
		return
	}
}

// send writes one message and returns the frame's memory to be used again.
func (s *subscriber) send(conn *websocket.Conn, frame []byte, message broker.Message) []byte {
	frame, err := appendFrame(frame, message)
	if err != nil {
		s.finish(ending{code: websocket.StatusInternalError, reason: err.Error()})
		return nil
	}
	ctx, cancel := context.WithTimeout(s.killed, s.m.o.WriteTimeout)
	defer cancel()
	defer context.AfterFunc(s.ended, func() {
		timer := time.NewTimer(cutGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})()
	s.writing.Store(true)
	err = conn.Write(ctx, websocket.MessageText, frame)
	s.writing.Store(false)
	switch {
	case err == nil:
		s.m.delivered.Add(1)
		s.m.o.Topics.Delivered(s.topic)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.m.cut.Add(1)
		s.m.log.Warn("slow subscriber cut", "topic", s.topic, "queue", s.queue, "unread_for", s.m.o.WriteTimeout)
		s.lost(err)
	default:
		s.lost(err)
	}
	if cap(frame) > 64<<10 {
		return nil // one large message is no reason to hold its memory for good
	}
	return frame
}

// lost ends a connection that nothing can be written to any more.
func (s *subscriber) lost(err error) {
	s.finish(ending{gone: true, reason: err.Error()})
	s.mu.Lock()
	s.waiting, s.bytes = nil, 0
	s.mu.Unlock()
	s.abort()
}

// probe finds out whether a silent client is still there. While a frame is
// being sent, WriteTimeout does that.
func (s *subscriber) probe(conn *websocket.Conn) {
	tick := time.NewTicker(s.m.o.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.ended.Done():
			return
		case <-tick.C:
		}
		if start := time.Now(); !s.writing.Load() && !s.ping(conn) && s.seen.Load() < start.UnixNano() && !s.writing.Load() {
			s.finish(ending{gone: true, reason: fmt.Sprintf("no answer to a ping within %v", s.m.o.PingTimeout)})
		}
	}
}

// ping reports whether the client answered in time.
func (s *subscriber) ping(conn *websocket.Conn) bool {
	ctx, cancel := context.WithTimeout(s.ended, s.m.o.PingTimeout)
	defer cancel()
	return conn.Ping(ctx) == nil
}

// close tells the client why, unless it has gone, and waits for its answer a
// moment (RFC 6455 section 7.1.2).
func (s *subscriber) close(conn *websocket.Conn) {
	s.mu.Lock()
	end := *s.end
	s.mu.Unlock()
	if end.gone {
		_ = conn.CloseNow()
		return
	}
	_ = conn.Close(end.code, shorten(end.reason))
}

// shorten fits a reason into a close frame (RFC 6455 section 5.5).
func shorten(reason string) string {
	const most = 123
	if len(reason) > most {
		reason = reason[:most]
	}
	return strings.ToValidUTF8(reason, "")
}
