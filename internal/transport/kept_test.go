package transport

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// idle returns the connections that are kept.
func idle(c *Client, peer discovery.Peer) []*conn {
	p := c.pool(peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.idle)
}

// age makes them look as if they had been idle for so long.
func age(c *Client, peer discovery.Peer, by time.Duration) {
	p := c.pool(peer)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.idle {
		conn.idleSince = time.Now().Add(-by)
	}
}

// A request that may not be repeated is not lost on a connection that its node has
// closed meanwhile, of whatever kind.
func TestClosedConnectionsAreNotUsed(t *testing.T) {
	for _, kind := range []string{"tcp", "unix", "tls 1.2", "tls 1.3"} {
		t.Run(kind, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
			t.Cleanup(s.Close)
			peer, o := discovery.Peer{Addr: s.Listener.Addr().String()}, Options{}
			switch kind {
			case "tls 1.2", "tls 1.3":
				s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
				if kind == "tls 1.3" {
					s.TLS.MaxVersion = tls.VersionTLS13
				}
				s.StartTLS()
				peer.TLS, o.TLS = true, trusting(s)
			case "unix":
				path := filepath.Join(t.TempDir(), "s")
				l, err := net.Listen("unix", path)
				if err != nil {
					t.Fatal(err)
				}
				s.Listener.Close()
				s.Listener, peer.Addr = l, unixPrefix+path
				s.Start()
			default:
				s.Start()
			}
			c := newClient(t, o)
			for range 10 {
				if _, body := exchange2(t, c, peer, post(strings.NewReader("hello"), 5)); body != "hello" {
					t.Fatalf("answer %q", body)
				}
				kept := idle(c, peer)
				if len(kept) != 1 || !kept[0].silent() {
					t.Fatalf("%d connections are kept, or the one is not silent", len(kept))
				}
				s.CloseClientConnections()
				wait(t, "the end is here", func() bool { return !kept[0].silent() })
			}
		})
	}
}

// A request that would be lost if its node closed the connection just now is sent on
// one that was used a moment ago, or on a new one; others take any.
func TestWhatCannotBeSentAgainGetsAYoungConnection(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return empty, true })
	c := newClient(t, Options{})
	method := func(name string, body io.Reader, length int64) *httpmsg.Request {
		r := post(body, length)
		r.Method = name
		return r
	}
	for _, test := range []struct {
		what    string
		request *httpmsg.Request
		again   bool // on the old connection
	}{
		{"GET", get("/"), true},
		{"PUT with its body in memory", method("PUT", bytes.NewReader([]byte("x")), 1), true},
		{"PUT with a stream", method("PUT", &oneByOne{text: "x"}, -1), false},
		{"POST", post(http.NoBody, 0), false},
		{"DELETE", method("DELETE", http.NoBody, 0), true},
	} {
		roundTrip(t, c, w.addr, get("/"))
		before := w.connections()
		age(c, at(w.addr), 2*young)
		roundTrip(t, c, w.addr, test.request)
		if again := w.connections() == before; again != test.again {
			t.Errorf("%s: sent on the old connection: %v", test.what, again)
		}
	}
	age(c, at(w.addr), 2*idleTimeout)
	before := w.connections()
	roundTrip(t, c, w.addr, get("/"))
	if w.connections() == before {
		t.Error("a connection is used that was idle for too long")
	}
}
