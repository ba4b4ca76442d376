package messaging

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
)

// serveSubscribe subscribes, and only then switches protocols: who has read
// the 101 misses nothing that is published from then on. It returns when the
// subscriber has gone.
func (m *Messaging) serveSubscribe(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if !wantsWebSocket(r) {
		// RFC 9110 section 15.5.22: 426 names what to upgrade to.
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		return httpmsg.Errorf(http.StatusUpgradeRequired, "GET /broker subscribes, which needs a WebSocket upgrade over HTTP/1.1; to publish, use POST")
	}
	s := newSubscriber(m, q)
	if !m.enter(s) {
		return httpmsg.Errorf(http.StatusServiceUnavailable, "subscribe: the sidecar is shutting down")
	}
	defer m.leave(s)
	subscription, err := m.subscribe(r.Context(), q, s.deliver)
	if err != nil {
		return refusal("subscribe", err)
	}
	conn, err := m.accept(w, r)
	if err != nil {
		_ = subscription.Close()
		return err
	}
	m.log.Debug("subscriber connected", "topic", q.topic, "queue", q.queue, "remote", r.RemoteAddr)
	end := s.run(conn, subscription)
	m.log.Debug("subscriber gone", "topic", q.topic, "queue", q.queue, "remote", r.RemoteAddr, "reason", end.reason)
	return nil
}

func (m *Messaging) subscribe(ctx context.Context, q query, h broker.Handler) (broker.Subscription, error) {
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	return m.o.Broker.Subscribe(ctx, q.topic, broker.SubscribeOptions{Queue: q.queue}, h) //nolint:wrapcheck // the caller says what it did
}

func wantsWebSocket(r *http.Request) bool {
	for _, list := range r.Header.Values("Upgrade") {
		for protocol := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// accept answers 101, or returns why not without having answered.
func (m *Messaging) accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	handshake := &handshakeWriter{ResponseWriter: w}
	conn, err := websocket.Accept(handshake, r, &websocket.AcceptOptions{
		OriginPatterns:  m.o.OriginPatterns,
		CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		status := handshake.status
		if status < 400 {
			status = http.StatusInternalServerError
		}
		return nil, httpmsg.Errorf(status, "subscribe: %v", err)
	}
	conn.SetReadLimit(m.o.MaxBodySize)
	return conn, nil
}

// handshakeWriter keeps the WebSocket library from answering a handshake that
// it refuses: errors are answered in one place.
type handshakeWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader lets the 101 through and takes note of any other status.
func (w *handshakeWriter) WriteHeader(status int) {
	w.status = status
	if status == http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write drops the text of a refusal, which is in the error as well.
func (w *handshakeWriter) Write(p []byte) (int, error) { return len(p), nil }

// Unwrap lets the library find the connection.
func (w *handshakeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
