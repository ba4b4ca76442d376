//go:build unix

package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// socket is a WebSocket client that reads everything.
type socket struct {
	t      *testing.T
	conn   *websocket.Conn
	frames chan []byte
	ended  chan error // what ended the reading
}

// open connects to a path and begins to read.
func (s *sidecar) open(path string) *socket {
	s.t.Helper()
	k := &socket{t: s.t, conn: s.dial(path), frames: make(chan []byte, 100_000), ended: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, frame, err := k.conn.Read(context.Background())
			if err != nil {
				k.ended <- err
				return
			}
			k.frames <- frame
		}
	}()
	s.t.Cleanup(func() {
		_ = k.conn.CloseNow() // the sidecar may have closed it
		<-done
	})
	return k
}

// dial connects to a path; the test's end closes the connection.
func (s *sidecar) dial(path string) *websocket.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, "ws://"+s.addr+path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
	if err != nil {
		s.t.Fatalf("open %s: %v (%v)", path, err, resp)
	}
	conn.SetReadLimit(64 << 20)
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

func (s *sidecar) subscribe(topic, queue string) *socket {
	s.t.Helper()
	path := "/broker?topic=" + url.QueryEscape(topic)
	if queue != "" {
		path += "&queue=" + url.QueryEscape(queue)
	}
	return s.open(path)
}

// send writes a frame.
func (k *socket) send(frame string) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := k.conn.Write(ctx, websocket.MessageText, []byte(frame)); err != nil {
		k.t.Fatal(err)
	}
}

// next returns the next frame.
func (k *socket) next() []byte {
	k.t.Helper()
	select {
	case frame := <-k.frames:
		return frame
	case err := <-k.ended:
		if len(k.frames) > 0 { // that came before
			k.ended <- err
			return <-k.frames
		}
		k.t.Fatalf("the connection ended: %v", err)
	case <-time.After(patient):
		k.t.Fatal("no frame came")
	}
	return nil
}

// message is a frame of /broker.
type message struct {
	Header map[string]string
	Body   []byte
}

func (k *socket) message() message {
	k.t.Helper()
	frame := k.next()
	var m message
	if err := json.Unmarshal(frame, &m); err != nil {
		k.t.Fatalf("frame %.200q: %v", frame, err)
	}
	return m
}

// quiet requires that nothing has come.
func (k *socket) quiet(what string) {
	k.t.Helper()
	select {
	case frame := <-k.frames:
		k.t.Errorf("%s: got %.200q", what, frame)
	default:
	}
}

// change is a frame of a registry watch.
type change struct {
	Action  string
	Service struct {
		Name  string
		Nodes []struct{ ID string }
	}
}

// awaitChange reads changes until one has the action and service.
func (k *socket) awaitChange(action, service string) {
	k.t.Helper()
	for {
		frame := k.next()
		var c change
		if err := json.Unmarshal(frame, &c); err != nil {
			k.t.Fatalf("frame %q: %v", frame, err)
		}
		if c.Action == action && c.Service.Name == service {
			return
		}
	}
}
