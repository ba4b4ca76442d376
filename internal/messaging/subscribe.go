package messaging

import (
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/socket"
)

// serveSubscribe subscribes, and only then switches protocols: who has read
// the 101 misses nothing that is published from then on. It returns when the
// subscriber has gone.
func (m *Messaging) serveSubscribe(w http.ResponseWriter, r *http.Request, q query) error {
	if !socket.Wanted(r) {
		// RFC 9110 section 15.5.22: 426 names what to upgrade to. HTTP/2 has no
		// such fields, and clients reset an answer with them (RFC 9113 section 8.2.2).
		if r.ProtoMajor == 1 {
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
		}
		return httpmsg.Errorf(http.StatusUpgradeRequired, "GET /broker subscribes, which needs a WebSocket upgrade over HTTP/1.1; without one, have messages posted to you with --subscribe; to publish, use POST")
	}
	c := newConnection(m, q)
	if !m.enter(c) {
		return httpmsg.Errorf(http.StatusServiceUnavailable, "subscribe: the sidecar is shutting down")
	}
	defer m.leave(c)
	if q.ack {
		return m.serveDurable(w, r, c)
	}
	return m.serveLive(w, r, c)
}

// serveLive serves a subscriber that gets what is published while it is there.
func (m *Messaging) serveLive(w http.ResponseWriter, r *http.Request, c *connection) error {
	s := newSubscriber(c)
	defer s.drop()
	leave, err := m.join(r.Context(), s)
	if err != nil {
		return refusal(err)
	}
	if err := c.accept(w, r, m.o.MaxBodySize); err != nil {
		leave()
		return err
	}
	m.live.enter(s)
	defer m.live.leave(s)
	m.log.Debug("subscriber connected", "topic", c.topic, "queue", c.queue, "remote", r.RemoteAddr)
	end := c.run(leave, s.write, s.received)
	m.log.Debug("subscriber gone", "topic", c.topic, "queue", c.queue, "remote", r.RemoteAddr, "reason", end.reason)
	return nil
}

// join subscribes for s and returns what ends that.
func (m *Messaging) join(ctx context.Context, s *subscriber) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	if s.queue == "" {
		return m.fanout.join(ctx, m.o.Broker, s)
	}
	subscription, err := m.o.Broker.Subscribe(ctx, s.topic, broker.SubscribeOptions{Queue: s.queue}, s.receive)
	if err != nil {
		return nil, err //nolint:wrapcheck // the caller says what it did
	}
	return func() { _ = subscription.Close() }, nil
}

// accept answers 101, or returns why not without having answered.
func (c *connection) accept(w http.ResponseWriter, r *http.Request, limit int64) error {
	tap := &wireTap{ResponseWriter: w}
	conn, err := socket.Accept(tap, r, &websocket.AcceptOptions{
		OriginPatterns:  c.m.o.OriginPatterns,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return err //nolint:wrapcheck // it is complete
	}
	conn.SetReadLimit(limit)
	c.Conn, c.wire = conn, tap.wire
	return nil
}
