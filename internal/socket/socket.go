// Package socket answers WebSocket handshakes for the sidecar's own paths, so
// that one that is refused gets the sidecar's error like any other request.
// What is said over the connection is its callers'.
package socket

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/auth"
	"github.com/micro/sidecar/internal/httpmsg"
)

// Wanted reports whether a request asks for a WebSocket (RFC 6455 section 4.1).
func Wanted(r *http.Request) bool {
	for _, list := range r.Header.Values("Upgrade") {
		for protocol := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(protocol), "websocket") {
				return true
			}
		}
	}
	return false
}

// Accept answers 101. When it returns an error, which is an [httpmsg.Error],
// nothing was answered, but the header fields that its status calls for are
// set. A client that shows a token in a subprotocol is answered with the
// sidecar's, unless it offers one of o.Subprotocols.
func Accept(w http.ResponseWriter, r *http.Request, o *websocket.AcceptOptions) (*websocket.Conn, error) {
	var options websocket.AcceptOptions
	if o != nil {
		options = *o
	}
	options.Subprotocols = append(slices.Clip(options.Subprotocols), auth.Protocol)
	handshake := &handshakeWriter{ResponseWriter: w}
	conn, err := websocket.Accept(handshake, r, &options)
	if err == nil {
		return conn, nil
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause
	}
	status := handshake.status
	if status < 400 {
		status = http.StatusInternalServerError
	}
	return nil, httpmsg.Errorf(status, "%v", err)
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
