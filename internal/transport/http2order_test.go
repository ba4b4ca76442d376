package transport

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
)

// The node's first settings are acknowledged as any others: nodes close
// connections whose client does not.
func TestHTTP2AcknowledgesSettings(t *testing.T) {
	acks := make(chan int, 1)
	peer := startFrames(t, nil, func(n *frameNode) {
		count := 0
		n.until(func(f http2.Frame) bool {
			if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
				count++
			}
			head, ok := f.(*http2.MetaHeadersFrame)
			if ok {
				acks <- count
				n.head(head.StreamID, true, ":status", "204")
			}
			return false
		})
	})
	c := newClient(t, Options{})
	exchange2(t, c, peer, get("/"))
	if n := <-acks; n != 1 {
		t.Errorf("%d acknowledgements came before the first request", n)
	}
}

// A request that has its place on a connection when the node goes away, and
// begins after that, goes to a new one: the node would say nothing to it.
func TestHTTP2GoAwayComesFirst(t *testing.T) {
	reserved := make(chan bool)
	peer := startFrames(t, nil, func(n *frameNode) {
		if n.nth == 1 {
			<-reserved
			_ = n.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
		n.until(func(http2.Frame) bool { return false })
	})
	c := newClient(t, Options{})
	conn, err := c.stream(t.Context(), c.pool(peer), 0)
	if err != nil {
		t.Fatal(err)
	}
	close(reserved)
	wait(t, "the node goes away", func() bool { return conn.gone() != nil })
	s := newStream(t.Context(), conn, post(bytes.NewReader([]byte("x")), 1))
	if err := s.send(); !errors.Is(err, errUnprocessed) || s.wrote || conn.dead() {
		t.Errorf("the request was sent: %v, connection closed: %v", err, conn.dead())
	}
	s.abandon()
	if !conn.dead() {
		t.Error("the connection is kept")
	}
}

// A node that ends every connection at once is not sent more and more of them.
func TestHTTP2GoAwayAlways(t *testing.T) {
	var made atomic.Int32
	peer := startFrames(t, nil, func(n *frameNode) {
		made.Add(1)
		_ = n.WriteGoAway(0, http2.ErrCodeNo, []byte("bye"))
		n.until(func(http2.Frame) bool { return false })
	})
	c := newClient(t, Options{})
	for range 20 {
		_, err := c.Do(t.Context(), peer, post(bytes.NewReader([]byte("x")), 1))
		if !NotSent(err) {
			t.Fatalf("error %v", err)
		}
	}
	if n := made.Load(); n > 20*attempts*attempts {
		t.Errorf("%d connections were made", n)
	}
}

// What a stream took of the connection's window and did not send is left to the
// others.
func TestHTTP2WindowOfAbandonedUploads(t *testing.T) {
	peer := startFrames(t, nil, func(n *frameNode) { n.until(func(http2.Frame) bool { return false }) })
	c := newClient(t, Options{})
	conn, err := c.stream(t.Context(), c.pool(peer), 0)
	if err != nil {
		t.Fatal(err)
	}
	body, in := io.Pipe()
	defer in.Close()
	s := newStream(t.Context(), conn, post(body, -1))
	if err := s.send(); err != nil {
		t.Fatal(err)
	}
	n := conn.room(s, 100)
	s.reset(http2.ErrCodeCancel) // it comes between the two
	if err := s.write(make([]byte, n), false); err != nil {
		t.Error(err)
	}
	conn.mu.Lock()
	window := conn.window
	conn.mu.Unlock()
	if n != 100 || window != defaultWindow {
		t.Errorf("the window is %d after %d bytes that were not sent", window, n)
	}
	_ = in.Close()
	s.abandon()
}

// A refused body can be sent again from where it began, though some had been read
// before, and however much of it went with the head.
func TestHTTP2RefusedBodyBeginsWhereItDid(t *testing.T) {
	for _, window := range []uint32{defaultWindow, 3} {
		got := make(chan string, attempts)
		peer := startFrames(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: window}}, func(n *frameNode) {
			for nth := 0; ; nth++ {
				id, text := n.request(), ""
				if id == 0 {
					return
				}
				n.until(func(f http2.Frame) bool {
					data, ok := f.(*http2.DataFrame)
					if !ok {
						return false
					}
					text += string(data.Data())
					_ = n.WriteWindowUpdate(id, 10)
					return data.StreamEnded()
				})
				if got <- text; nth == 0 {
					_ = n.WriteRSTStream(id, http2.ErrCodeRefusedStream)
				} else {
					n.head(id, true, ":status", "204")
				}
			}
		})
		body := bytes.NewReader([]byte("gone, here"))
		_, _ = body.Seek(6, io.SeekStart)
		c, r := newClient(t, Options{}), post(body, 4)
		if _, err := c.Do(t.Context(), peer, r); !NotSent(err) {
			t.Errorf("window %d: refused with %v", window, err)
		}
		exchange2(t, c, peer, r)
		if first, again := <-got, <-got; first != "here" || again != first {
			t.Errorf("window %d: sent %q, then %q", window, first, again)
		}
	}
}

// Who reads a body can wait for its next piece without holding a buffer.
func TestHTTP2WaitForAPiece(t *testing.T) {
	next := make(chan bool)
	peer := startFrames(t, nil, func(n *frameNode) {
		id := n.request()
		n.head(id, false, ":status", "200")
		for <-next {
			_ = n.WriteData(id, false, []byte("event"))
		}
		_ = n.WriteData(id, true, nil)
		n.until(func(http2.Frame) bool { return false })
	})
	res, err := newClient(t, Options{}).Do(t.Context(), peer, get("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body := res.Body.(interface {
		io.Reader
		Here() bool
		Wait()
	})
	for _, event := range []bool{true, true, false} {
		if body.Here() {
			t.Error("something is here before it was sent")
		}
		next <- event
		body.Wait()
		if !body.Here() {
			t.Error("nothing came")
		}
		if n, err := body.Read(make([]byte, 10)); event != (n == 5) || errors.Is(err, io.EOF) == event {
			t.Errorf("read %d bytes: %v", n, err)
		}
	}
}
