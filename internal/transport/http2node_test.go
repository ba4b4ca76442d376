package transport

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// frameNode is one connection of a node that a test plays frame by frame.
type frameNode struct {
	*http2.Framer
	conn net.Conn
	nth  int // which connection it is, from 1
}

// startFrames starts a node; play is called with each connection, after the
// settings were exchanged.
func startFrames(t *testing.T, settings []http2.Setting, play func(n *frameNode)) discovery.Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	all.Go(func() {
		for nth := 1; ; nth++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			all.Go(func() {
				defer conn.Close()
				n := &frameNode{http2.NewFramer(conn, conn), conn, nth}
				n.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
				preface := make([]byte, len(http2.ClientPreface))
				if _, err := io.ReadFull(conn, preface); err != nil || n.WriteSettings(settings...) != nil {
					return
				}
				play(n)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return discovery.Peer{Addr: l.Addr().String(), HTTP2: true}
}

// request reads frames up to the next request's head; 0 at the end.
func (n *frameNode) request() uint32 {
	for {
		switch f, err := n.ReadFrame(); f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.StreamID
		default:
			if err != nil {
				return 0
			}
		}
	}
}

// until reads frames until f says that it has seen enough.
func (n *frameNode) until(f func(http2.Frame) bool) {
	for {
		frame, err := n.ReadFrame()
		if err != nil || f(frame) {
			return
		}
	}
}

// head sends an answer's head.
func (n *frameNode) head(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = n.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

func post(body io.Reader, length int64) *httpmsg.Request {
	r := get("/")
	r.Method, r.Body, r.Length = "POST", body, length
	return r
}
