package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/micro/sidecar/internal/httpmsg"
)

// Connections beyond the bound wait until one ends, whatever that one was and on
// whichever listener; none is counted twice, or for ever.
func TestMaxConnections(t *testing.T) {
	s := startWith(t, Options{Addresses: []string{"127.0.0.1:0", "127.0.0.2:0"}, MaxConnections: 2}, routes{
		serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			if r.Header.Has("Upgrade") {
				conn, err := w.Upgrade(httpmsg.Header{{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "x"}})
				if err == nil {
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}
				return err
			}
			return w.Head(http.StatusNoContent, nil, 0)
		},
	})
	const ask = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
	send := func(conn net.Conn, text string) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	answered := func(conn net.Conn, what, want string) {
		t.Helper()
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Fatalf("%s: answered %q, %v", what, line, err)
		}
	}
	at := func(address string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // it is open
		return conn
	}
	for range 3 {
		for what, hold := range map[string]func(net.Conn){
			"the fast path": func(c net.Conn) { send(c, ask); answered(c, "a first one", " 204 ") },
			"net/http's way": func(c net.Conn) {
				send(c, "GET http://h/x HTTP/1.1\r\nHost: h\r\n\r\n")
				answered(c, "a first one", " 204 ")
			},
			"a tunnel": func(c net.Conn) {
				send(c, strings.Replace(ask, "\r\n\r\n", "\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 1))
				answered(c, "a tunnel", " 101 ")
			},
			"a tunnel of net/http's": func(c net.Conn) {
				send(c, "GET http://h/x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				answered(c, "a tunnel", " 101 ")
			},
			"HTTP/2": func(c net.Conn) {
				send(c, http2.ClientPreface)
				framer := http2.NewFramer(c, c)
				if err := framer.WriteSettings(); err != nil {
					t.Fatal(err)
				}
				if _, err := framer.ReadFrame(); err != nil {
					t.Fatal(err)
				}
			},
		} {
			first, second := at(s.Addresses()[0]), at(s.Addresses()[1])
			hold(first)
			hold(second)
			third := at(s.Addresses()[0])
			send(third, ask)
			_ = third.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // it is open
			if n, err := third.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: a third connection was not left waiting: %v", what, err)
			}
			_ = third.SetReadDeadline(time.Now().Add(30 * time.Second)) // it is open
			second.Close()
			answered(third, what+": when there is room", " 204 ")
			third.Close()
			first.Close()
		}
	}
	// Those that wait at the end are closed and hold up nothing.
	first, second, third := at(s.Addresses()[0]), at(s.Addresses()[0]), at(s.Addresses()[1])
	for _, c := range []net.Conn{first, second} {
		send(c, ask)
		answered(c, "before the end", " 204 ")
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one that waited is open after the end: %v", err)
	}
}
