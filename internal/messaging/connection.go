package messaging

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
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

// connection is a subscriber's WebSocket, of either grade: how it is written
// to, probed and ended.
type connection struct {
	m *Messaging
	query
	*websocket.Conn              // nil until the handshake is done
	wire            *wire        // below it
	writing         atomic.Int32 // writes that are under way
	begun           time.Time
	seen            atomic.Int64 // when the client was last heard, in nanoseconds since begun

	ended  context.Context // ends when end is set
	cancel context.CancelFunc
	killed context.Context // ends when the connection must not be waited for
	abort  context.CancelFunc

	endMu sync.Mutex
	end   *ending
}

func newConnection(m *Messaging, q query) *connection {
	c := &connection{m: m, query: q, begun: time.Now()}
	c.ended, c.cancel = context.WithCancel(context.Background())
	c.killed, c.abort = context.WithCancel(context.Background())
	return c
}

// finish begins the end; only the first call counts.
func (c *connection) finish(e ending) {
	c.endMu.Lock()
	defer c.endMu.Unlock()
	if c.end == nil {
		c.end = &e
		c.cancel()
	}
}

// ending is nil until the end has begun.
func (c *connection) ending() *ending {
	c.endMu.Lock()
	defer c.endMu.Unlock()
	return c.end
}

// run serves the connection until it ends: write and received are the grade's
// own, leave is called as soon as the end has begun.
func (c *connection) run(leave, write func(), received func(body []byte)) ending {
	conn := c.Conn
	var tasks sync.WaitGroup
	tasks.Go(func() {
		// At once, whatever the writer is doing: a queue's messages must not
		// come to who drops them.
		<-c.ended.Done()
		c.wire.hurry(cutGrace)
		leave()
	})
	tasks.Go(func() {
		write()
		c.close()
	})
	tasks.Go(c.probe)
	stopKilling := context.AfterFunc(c.killed, func() { _ = conn.CloseNow() })
	c.read(received)
	tasks.Wait()
	stopKilling()
	c.abort()
	_ = conn.CloseNow()
	return *c.ending()
}

// read passes on what the client sends until the connection ends.
func (c *connection) read(received func(body []byte)) {
	for {
		_, body, err := c.Read(c.killed)
		if err != nil {
			c.finish(ending{gone: true, reason: err.Error()})
			return
		}
		c.seen.Store(int64(time.Since(c.begun)))
		received(body)
	}
}

// send writes whole frames at once and reports whether they went out.
func (c *connection) send(frames []byte) bool {
	c.writing.Add(1)
	err := c.wire.write(frames, c.m.o.WriteTimeout)
	c.writing.Add(-1)
	switch {
	case err == nil:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.wire.isHurried():
		c.m.cut.Add(1)
		c.m.log.Warn("slow subscriber cut", "topic", c.topic, "queue", c.queue, "unread_for", c.m.o.WriteTimeout)
	}
	// Nothing can be written to it any more.
	c.finish(ending{gone: true, reason: err.Error()})
	c.abort()
	return false
}

// probe finds out whether a silent client is still there. While a frame is
// being sent, WriteTimeout does that.
func (c *connection) probe() {
	tick := time.NewTicker(c.m.o.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.ended.Done():
			return
		case <-tick.C:
		}
		if start := time.Since(c.begun); c.writing.Load() == 0 && !c.ping() && c.seen.Load() < int64(start) && c.writing.Load() == 0 {
			c.finish(ending{gone: true, reason: fmt.Sprintf("no answer to a ping within %v", c.m.o.PingTimeout)})
		}
	}
}

// ping reports whether the client answered in time.
func (c *connection) ping() bool {
	ctx, cancel := context.WithTimeout(c.ended, c.m.o.PingTimeout)
	defer cancel()
	return c.Ping(ctx) == nil
}

// close tells the client why, unless it has gone, and waits for its answer a
// moment (RFC 6455 section 7.1.2).
func (c *connection) close() {
	end := *c.ending()
	if end.gone {
		_ = c.CloseNow()
		return
	}
	_ = c.Close(end.code, shorten(end.reason))
}

// shorten fits a reason into a close frame (RFC 6455 section 5.5).
func shorten(reason string) string {
	const most = 123
	if len(reason) > most {
		reason = reason[:most]
	}
	return strings.ToValidUTF8(reason, "")
}
