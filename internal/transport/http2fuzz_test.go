package transport

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/discovery"
)

// answerFrames is what a node may send, as bytes.
func answerFrames(play func(n *frameNode)) []byte {
	var b bytes.Buffer
	play(&frameNode{Framer: http2.NewFramer(&b, nil)})
	return b.Bytes()
}

// Whatever a node sends, a request ends, in an answer or in an error, and its
// body is not longer than what came.
func FuzzHTTP2Node(f *testing.F) {
	f.Add(answerFrames(func(n *frameNode) { n.head(1, true, ":status", "204") }))
	f.Add(answerFrames(func(n *frameNode) {
		n.head(1, false, ":status", "103", "link", "</a>")
		n.head(1, false, ":status", "200", "content-length", "3")
		_ = n.WriteDataPadded(1, false, []byte("abc"), []byte{0, 0})
		_ = n.WriteWindowUpdate(0, 100)
		_ = n.WriteWindowUpdate(1, 1<<31-1)
		_ = n.WritePing(false, [8]byte{})
		_ = n.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		n.head(1, true, "grpc-status", "0")
		_ = n.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
	}))
	f.Add(answerFrames(func(n *frameNode) { _ = n.WriteRSTStream(1, http2.ErrCodeRefusedStream) }))
	f.Add(answerFrames(func(n *frameNode) { _ = n.WriteGoAway(0, http2.ErrCodeInternal, nil) }))
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := New(Options{DialTimeout: 10 * time.Second})
		defer c.Close()
		ours, theirs := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, theirs)
		}()
		go func() {
			n := http2.NewFramer(theirs, nil)
			_ = n.WriteSettings()
			_, _ = theirs.Write(data)
			_ = theirs.Close()
		}()
		conn, err := newH2conn(c, discovery.Peer{Addr: "n", HTTP2: true}, ours)
		if err != nil {
			t.Fatal(err)
		}
		if conn.reserve() {
			s := newStream(t.Context(), conn, post(bytes.NewReader(make([]byte, 100)), 100))
			if err := s.exchange(&Forwarding{}); err == nil {
				res := s.answer()
				n, err := io.Copy(io.Discard, res.Body)
				if n > int64(len(data)) || err == nil && res.Length >= 0 && n != res.Length && n != 0 {
					t.Errorf("%d bytes, %v of an answer of length %d", n, err, res.Length)
				}
				_ = res.Body.Close()
			} else {
				s.abandon()
			}
		}
		conn.close(errClosed)
		<-done
	})
}

// A block of fields that never ends is cut off.
func TestHTTP2EndlessHead(t *testing.T) {
	peer := startFrames(t, nil, func(n *frameNode) {
		id := n.request()
		var b bytes.Buffer
		_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = n.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes()})
		for n.WriteContinuation(id, false, bytes.Repeat([]byte{0x82}, maxFrame)) == nil { // a field of one byte, again and again
		}
	})
	c := newClient(t, Options{})
	if _, err := c.Do(t.Context(), peer, get("/")); err == nil || NotSent(err) {
		t.Errorf("%v", err)
	}
}
