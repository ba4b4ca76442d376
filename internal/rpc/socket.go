package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/socket"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
)

// binaryProtocol is the subprotocol with which a frame is a protobuf message.
const binaryProtocol = "protobuf"

// serveSocket makes a call over a WebSocket, a frame a message: JSON in text
// frames, or, with the subprotocol "protobuf", protobuf in binary ones. An
// empty text frame is the client's last: WebSocket has no half-close. The end
// of the call closes the connection, with 1000 when it went well, else with
// 1011 behind a text frame {"error":…}.
func (h *Handler) serveSocket(ctx context.Context, call Request, w httpmsg.ResponseWriter, r *httpmsg.Request) error {
	// Who asks for what is not there gets an answer that any client shows.
	looking, cancel := context.WithTimeout(ctx, h.Caller.Timeout)
	_, err := h.Caller.service(looking, call)
	cancel()
	if err != nil {
		return err
	}
	ctx, end, err := h.Streams.Begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	conn, err := socket.Upgrade(ctx, w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{binaryProtocol},
		InsecureSkipVerify: true, // the guard has looked at the origin
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return err
	}
	conn.SetReadLimit(h.MaxBody)

	ctx, gone := context.WithCancelCause(ctx)
	f := &frames{conn: conn, came: make(chan []byte), full: make(chan struct{}), end: gone, kind: websocket.MessageText}
	call.ContentType = transport.JSON
	if conn.Subprotocol() == binaryProtocol {
		f.kind, call.ContentType = websocket.MessageBinary, transport.Protobuf
	}
	var reading sync.WaitGroup
	reading.Go(func() { f.read(ctx) })
	defer func() { // whatever the reading waits for, it ends
		gone(nil)
		conn.CloseNow()
		reading.Wait()
	}()
	defer context.AfterFunc(ctx, func() {
		// A client that takes nothing is not waited for.
		time.AfterFunc(farewellTimeout, func() { conn.CloseNow() })
	})()

	err = h.converse(ctx, call, f)
	switch cause := context.Cause(ctx); {
	case err == nil:
		_ = conn.Close(websocket.StatusNormalClosure, "") // who is gone needs no farewell
		return nil
	case errors.Is(cause, streams.ErrStopping):
		_ = conn.Close(websocket.StatusGoingAway, streams.ErrStopping.Error())
		return nil
	case cause != nil:
		err = cause // why the client's side ended says more than what became of the call
	}
	f.fail(ctx, h.farewell(err), err)
	return nil
}

// converse makes the call and sends its messages until it ends.
func (h *Handler) converse(ctx context.Context, call Request, f *frames) error {
	s, done, err := h.Caller.Stream(ctx, call, &transport.Requests{
		Next: func() ([]byte, error) { return f.next(ctx) },
		Full: sync.OnceFunc(func() { close(f.full) }),
	})
	if err != nil {
		return err
	}
	defer done()
	for {
		message, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The end of a context given to the library cuts the connection, which
		// would leave no way to say why.
		if err := f.conn.Write(context.WithoutCancel(ctx), f.kind, message); err != nil {
			return fmt.Errorf("send a message to the client: %w", err)
		}
	}
}

// frames are the two directions of a client's WebSocket.
type frames struct {
	conn *websocket.Conn
	kind websocket.MessageType
	came chan []byte   // closed when the client has sent its last
	full chan struct{} // closed when the method takes no more
	end  context.CancelCauseFunc
}

// read passes the client's messages on as they are asked for, and goes on
// reading after the last, for the client's end.
func (f *frames) read(ctx context.Context) {
	last := false
	for {
		kind, message, err := f.conn.Read(context.WithoutCancel(ctx)) // it ends with the connection
		switch {
		case err != nil:
			f.end(clientGone(err))
			return
		case last:
			f.end(httpmsg.Errorf(http.StatusBadRequest, "a frame came behind the empty one, which is the last"))
			return
		case kind == websocket.MessageText && len(message) == 0:
			last = true
			close(f.came)
			continue
		case kind != f.kind:
			f.end(httpmsg.Errorf(http.StatusUnsupportedMediaType, "a %s frame came: messages are JSON in text frames, or protobuf in binary ones with the subprotocol %s", kindName(kind), binaryProtocol))
			return
		}
		select {
		case f.came <- message:
		case <-f.full:
			f.end(httpmsg.Errorf(http.StatusBadRequest, "the method takes one message, and got another"))
			return
		case <-ctx.Done():
			return
		}
	}
}

func kindName(kind websocket.MessageType) string {
	return strings.ToLower(strings.TrimPrefix(kind.String(), "Message"))
}

// next waits for the client's next message.
func (f *frames) next(ctx context.Context) ([]byte, error) {
	select {
	case message, ok := <-f.came:
		if !ok {
			return nil, io.EOF
		}
		return message, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// clientGone is why a client's side ended: that it went is a cancelled request.
func clientGone(err error) error {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return httpmsg.Errorf(http.StatusRequestEntityTooLarge, "a frame is larger than --max_body_size")
	}
	return fmt.Errorf("the client closed: %w", context.Canceled)
}

// farewellTimeout bounds how long a client may take to hear why a call ended.
const farewellTimeout = 5 * time.Second

// maxReason is the longest reason that a close frame has room for, in bytes
// (RFC 6455 section 5.5).
const maxReason = 123

// fail tells the client what went wrong, if it is still there.
func (f *frames) fail(ctx context.Context, farewell []byte, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
	defer cancel()
	if f.conn.Write(ctx, websocket.MessageText, farewell) != nil {
		return
	}
	reason := strings.ToValidUTF8(why.Error(), "\uFFFD")
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason-len("…")], "") + "…"
	}
	_ = f.conn.Close(websocket.StatusInternalError, reason) // who is gone needs no farewell
}
