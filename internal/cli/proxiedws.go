package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Time between two pings of a subscription, and how long an answer may take:
// without them a sidecar whose machine went away would be waited for forever.
const (
	pingInterval = 20 * time.Second
	pingTimeout  = 10 * time.Second
)

// Subscribe reads the frames of the sidecar's WebSocket.
func (p *proxied) Subscribe(ctx context.Context, s subscription, live func(), emit func(received) error) error {
	query := url.Values{"topic": {s.topic}}
	if s.queue != "" {
		query.Set("queue", s.queue)
	}
	if s.ack {
		query.Set("ack", "true")
	}
	dialed, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	conn, resp, err := websocket.Dial(dialed, p.base.endpoint("broker", query), &websocket.DialOptions{HTTPClient: p.http})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return refusal(resp)
		}
		return p.unreachable(err)
	}
	defer func() { _ = conn.CloseNow() }() // after an orderly close it does nothing
	conn.SetReadLimit(maxAnswer)
	live()

	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer stop()
	tasks.Go(func() { keepAlive(reading, conn) })
	defer context.AfterFunc(ctx, func() {
		_ = conn.Close(websocket.StatusNormalClosure, "") // the reader sees the end
	})()

	err = readFrames(reading, conn, emit)
	if ctx.Err() != nil {
		return nil
	}
	return p.lost(err)
}

// readFrames passes every message on until the connection ends.
func readFrames(ctx context.Context, conn *websocket.Conn, emit func(received) error) error {
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var m struct {
			received
			Error string
		}
		if err := json.Unmarshal(frame, &m); err != nil {
			return fmt.Errorf("a frame that is no message: %w", err)
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
		if err := emit(m.received); err != nil {
			return &emitError{err}
		}
		if m.ID == "" {
			continue
		}
		ack, err := json.Marshal(map[string]string{"Ack": m.ID})
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, websocket.MessageText, ack); err != nil {
			return err
		}
	}
}

// keepAlive pings until ctx ends, and cuts a connection that does not answer.
func keepAlive(ctx context.Context, conn *websocket.Conn) {
	ticks := time.NewTicker(pingInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		pinged, cancel := context.WithTimeout(ctx, pingTimeout)
		err := conn.Ping(pinged)
		cancel()
		if err != nil {
			_ = conn.CloseNow() // the reader reports it
			return
		}
	}
}

// emitError marks an error of the receiver of messages: the connection is well.
type emitError struct{ err error }

// Error returns the receiver's error.
func (e *emitError) Error() string { return e.err.Error() }

// lost says why a subscription or a watch ended.
func (p *proxied) lost(err error) error {
	if own, ok := errors.AsType[*emitError](err); ok {
		return own.err
	}
	if closed, ok := errors.AsType[websocket.CloseError](err); ok {
		reason := closed.Reason
		if reason == "" {
			reason = closed.Code.String()
		}
		return fmt.Errorf("the sidecar at %s ended the subscription: %s", p.base, reason)
	}
	return fmt.Errorf("connection to the sidecar at %s lost: %w", p.base, err)
}
