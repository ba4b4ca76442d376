package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// What a node has not processed goes to it again, over a new connection.
func TestHTTP2GoAway(t *testing.T) {
	peer := startFrames(t, nil, func(n *frameNode) {
		id := n.request()
		if n.nth == 1 {
			_ = n.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
			n.until(func(http2.Frame) bool { return false })
			return
		}
		n.head(id, true, ":status", "204")
		n.request()
	})
	c := newClient(t, Options{})
	res, _ := exchange2(t, c, peer, post(strings.NewReader("once"), 4))
	if res.Status != 204 {
		t.Errorf("status %d", res.Status)
	}
}

// A stream that was accepted before the node went away comes to its end.
func TestHTTP2GoAwayLetsStreamsEnd(t *testing.T) {
	peer := startFrames(t, nil, func(n *frameNode) {
		id := n.request()
		n.head(id, false, ":status", "200")
		_ = n.WriteGoAway(id, http2.ErrCodeNo, nil)
		_ = n.WriteData(id, true, []byte("rest"))
		n.until(func(http2.Frame) bool { return false })
	})
	c := newClient(t, Options{})
	for range 3 { // each over its own connection
		if _, body := exchange2(t, c, peer, get("/")); body != "rest" {
			t.Errorf("body %q", body)
		}
	}
}

func TestHTTP2Refused(t *testing.T) {
	var seen atomic.Int32
	peer := startFrames(t, nil, func(n *frameNode) {
		for id := n.request(); id != 0; id = n.request() {
			seen.Add(1)
			_ = n.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	})
	c := newClient(t, Options{})
	_, err := c.Do(t.Context(), peer, post(bytes.NewReader([]byte("x")), 1))
	if node := (*NodeError)(nil); !errors.As(err, &node) || node.Sent || !node.Refused || seen.Load() != 1 {
		t.Errorf("a refused request: %v, after %d attempts; whether there is another is for the caller to say", err, seen.Load())
	}
	// A body that streams can be sent again when it is small and was there, but not
	// when some of it is still to come.
	body, in := io.Pipe()
	defer in.Close()
	go func() { _, _ = in.Write([]byte("x")) }()
	_, err = c.Do(t.Context(), peer, post(body, -1))
	if node := (*NodeError)(nil); !errors.As(err, &node) || !node.Sent {
		t.Errorf("a refused request with a body that streams: %v", err)
	}
}

// What the node does to an answer that has begun is an error, not its end.
func TestHTTP2BrokenAnswers(t *testing.T) {
	for name, act := range map[string]func(n *frameNode, id uint32){
		"reset":   func(n *frameNode, id uint32) { _ = n.WriteRSTStream(id, http2.ErrCodeCancel) },
		"close":   func(n *frameNode, _ uint32) { _ = n.conn.Close() },
		"short":   func(n *frameNode, id uint32) { _ = n.WriteData(id, true, []byte("x")) },
		"long":    func(n *frameNode, id uint32) { _ = n.WriteData(id, true, make([]byte, 100)) },
		"garbage": func(n *frameNode, _ uint32) { _, _ = n.conn.Write(bytes.Repeat([]byte("x"), 100)) },
		"trailer": func(n *frameNode, id uint32) { n.head(id, true, ":status", "200") },
		"flood": func(n *frameNode, id uint32) {
			for range streamWindow/maxFrame + 1 {
				_ = n.WriteData(id, false, make([]byte, maxFrame))
			}
		},
		"goaway": func(n *frameNode, id uint32) {
			_ = n.WriteGoAway(id, http2.ErrCodeInternal, []byte("boom"))
			_ = n.conn.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			length := "10"
			if name == "flood" {
				length = "10000000"
			}
			peer := startFrames(t, nil, func(n *frameNode) {
				id := n.request()
				n.head(id, false, ":status", "200", "content-length", length)
				_ = n.WriteData(id, false, []byte("abc"))
				act(n, id)
				n.until(func(http2.Frame) bool { return false })
			})
			c := newClient(t, Options{})
			res, err := c.Do(t.Context(), peer, get("/"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if name == "flood" { // nobody reads until it is over
				wait(t, "the stream broke", func() bool { s := res.Body.(*h2stream); s.mu.Lock(); defer s.mu.Unlock(); return s.err != nil })
			}
			body, err := io.ReadAll(res.Body)
			node := (*NodeError)(nil)
			if !errors.As(err, &node) || !node.Sent || !strings.HasPrefix(string(body), "abc") {
				t.Errorf("read %.20q, %v", body, err)
			}
			if reset := (*ResetError)(nil); errors.As(err, &reset) != (name == "reset") || name == "reset" && reset.Code != 8 {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestHTTP2BadHeads(t *testing.T) {
	for name, fields := range map[string][]string{
		"no status": {"a", "b"}, "words": {":status", "abc"}, "101": {":status", "101"}, "1xx that ends": {":status", "103"}, "short": {":status", "20"}, "upper case": {":status", "200", "A", "b"},
		"too large": {":status", "200", "a", strings.Repeat("x", 15<<10), "b", strings.Repeat("y", 60<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			peer := startFrames(t, nil, func(n *frameNode) {
				id := n.request()
				var b bytes.Buffer
				e := hpack.NewEncoder(&b)
				for i := 0; i < len(fields); i += 2 {
					_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
				}
				_ = n.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Next(maxFrame), EndHeaders: b.Len() == 0, EndStream: true})
				for b.Len() > 0 {
					_ = n.WriteContinuation(id, b.Len() <= maxFrame, b.Next(maxFrame))
				}
				n.until(func(http2.Frame) bool { return false })
			})
			c := newClient(t, Options{})
			_, err := c.Do(t.Context(), peer, get("/"))
			if node := (*NodeError)(nil); !errors.As(err, &node) || !node.Sent {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestHTTP2NodesThatSpeakSomethingElse(t *testing.T) {
	plain := startWire(t, func(string, string) (string, bool) { return empty, true })
	c := newClient(t, Options{})
	_, err := c.Do(t.Context(), discovery.Peer{Addr: plain.addr, HTTP2: true}, get("/"))
	if !NotSent(err) || !strings.Contains(err.Error(), "does not speak HTTP/2") {
		t.Errorf("a node that speaks HTTP/1.1: %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c = newClient(t, Options{DialTimeout: time.Second})
	_, err = c.Do(t.Context(), discovery.Peer{Addr: silent.Addr().String(), HTTP2: true}, get("/"))
	if !NotSent(err) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a node that says nothing: %v", err)
	}
}

func TestHTTP2Upgrade(t *testing.T) {
	s := startH2(t, func(http.ResponseWriter, *http.Request) {})
	c := newClient(t, Options{})
	r := get("/")
	r.Header = httpmsg.Header{{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "websocket"}}
	_, err := c.Do(t.Context(), s.peer(), r)
	if refusal := (*httpmsg.Error)(nil); !errors.As(err, &refusal) || refusal.Status != 501 {
		t.Errorf("an upgrade: %v", err)
	}
}

// More requests than a connection takes get another one.
func TestHTTP2ManyStreams(t *testing.T) {
	const limit, requests = 10, 95
	release := make(chan struct{})
	var inside atomic.Int32
	s := startH2(t, func(_ http.ResponseWriter, _ *http.Request) {
		inside.Add(1)
		<-release
	}, func(s *http.Server) { s.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: limit} })
	c := newClient(t, Options{})
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			res, err := c.Do(t.Context(), s.peer(), get("/"))
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
		})
	}
	wait(t, "all requests are inside", func() bool { return inside.Load() == requests })
	close(release)
	all.Wait()
	if n := s.open.Load(); n < requests/limit || n > 2*requests/limit {
		t.Errorf("%d connections", n)
	}
	c.Close()
	wait(t, "all connections are closed", func() bool { return s.open.Load() == 0 })
}

func TestHTTP2NoStreams(t *testing.T) {
	peer := startFrames(t, []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 0}}, func(n *frameNode) { n.request() })
	c := newClient(t, Options{})
	if _, err := c.Do(t.Context(), peer, get("/")); !NotSent(err) {
		t.Errorf("a node that takes no streams: %v", err)
	}
}

// A node that is gone without a word does not hold requests for ever, and new
// requests do not wait for it.
func TestHTTP2SilentNode(t *testing.T) {
	t.Parallel()
	var pings atomic.Int32
	peer := startFrames(t, nil, func(n *frameNode) {
		n.until(func(f http2.Frame) bool {
			switch f.(type) {
			case *http2.PingFrame:
				pings.Add(1)
			case *http2.MetaHeadersFrame:
				if n.nth > 1 {
					n.head(f.Header().StreamID, true, ":status", "204")
				}
			}
			return false
		})
	})
	c := newClient(t, Options{})
	c.every = 2 * time.Second
	_, err := c.Do(t.Context(), peer, post(http.NoBody, 0))
	if node := (*NodeError)(nil); !errors.As(err, &node) || !node.Sent || !strings.Contains(err.Error(), "sign of life") || pings.Load() != 1 {
		t.Errorf("%v, %d pings", err, pings.Load())
	}
	if res, _ := exchange2(t, c, peer, get("/")); res.Status != 204 {
		t.Errorf("status %d", res.Status)
	}
}

// A node that answers to PING may take its time, and is not asked again soon.
func TestHTTP2QuietNode(t *testing.T) {
	t.Parallel()
	var pings atomic.Int32
	done := make(chan struct{})
	peer := startFrames(t, nil, func(n *frameNode) {
		id := n.request()
		go func() {
			<-done
			n.head(id, true, ":status", "204")
		}()
		n.until(func(f http2.Frame) bool {
			if p, ok := f.(*http2.PingFrame); ok {
				pings.Add(1)
				_ = n.WritePing(true, p.Data)
				time.AfterFunc(5*time.Second, func() { close(done) }) // some looks later
			}
			return false
		})
	})
	c := newClient(t, Options{})
	c.every = 2 * time.Second // which a busy machine may need for the answer
	if res, _ := exchange2(t, c, peer, get("/")); res.Status != 204 || pings.Load() != 1 {
		t.Errorf("status %d after %d pings", res.Status, pings.Load())
	}
}
