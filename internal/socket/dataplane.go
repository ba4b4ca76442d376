package socket

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/httpmsg"
)

// WantedBy is [Wanted] for a request of the data plane.
func WantedBy(r *httpmsg.Request) bool {
	return r.Method == http.MethodGet && r.Header.HasToken("Upgrade", "websocket")
}

// Upgrade is [Accept] for a request of the data plane: the 101 goes out through
// w.Upgrade, whichever way the request came in.
func Upgrade(ctx context.Context, w httpmsg.ResponseWriter, r *httpmsg.Request, o *websocket.AcceptOptions) (*websocket.Conn, error) {
	request := (&http.Request{
		Method: r.Method, Host: r.Host, Header: make(http.Header, len(r.Header)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: r.RemoteAddr,
	}).WithContext(ctx)
	for _, f := range r.Header {
		request.Header.Add(f.Name, f.Value)
	}
	return Accept(&upgrader{w: w, header: http.Header{}}, request, o)
}

// upgrader is as much of an http.ResponseWriter as a handshake needs.
type upgrader struct {
	w      httpmsg.ResponseWriter
	header http.Header
}

func (u *upgrader) Header() http.Header         { return u.header }
func (u *upgrader) Write(p []byte) (int, error) { return len(p), nil }

// WriteHeader waits for Hijack, which sends the 101.
func (u *upgrader) WriteHeader(int) {}

// Hijack sends the 101 and hands over the connection.
func (u *upgrader) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var h httpmsg.Header
	for name, values := range u.header {
		for _, v := range values {
			h.Add(name, v)
		}
	}
	stream, err := u.w.Upgrade(h)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // the library says what it was doing
	}
	conn, ok := stream.(net.Conn)
	if !ok {
		return nil, nil, errors.Join(errors.New("the connection cannot be taken over"), stream.Close())
	}
	return conn, bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn)), nil
}
