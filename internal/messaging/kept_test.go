package messaging

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
)

// long bounds what must happen on a real engine on a busy machine.
const long = 30 * time.Second

// kept is a Messaging over a real embedded engine.
type kept struct {
	*testing.T
	*Messaging
	broker *nats.Broker
	engine *engine.Engine
	url    string
	stop   func()
}

// keep starts an engine in a directory of its own, and a Messaging over it.
func keep(t *testing.T) *kept {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return keepOn(t, e, nats.Options{})
}

func keepOn(t *testing.T, e *engine.Engine, o nats.Options) *kept {
	t.Helper()
	return keepWith(t, e, o, func(*Options) {})
}

func keepWith(t *testing.T, e *engine.Engine, o nats.Options, change func(*Options)) *kept {
	t.Helper()
	b, err := nats.New(t.Context(), e.MessagesConn(), o)
	if err != nil {
		t.Fatal(err)
	}
	options := Options{Broker: b, Fail: fail, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	change(&options)
	m := New(options)
	server := httptest.NewServer(m)
	k := &kept{T: t, Messaging: m, broker: b, engine: e, url: server.URL + "/broker"}
	k.stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	t.Cleanup(func() {
		k.stop()
		server.Close()
		_ = b.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return k
}

// request makes one and returns status and body.
func (k *kept) request(method, query, body string, header ...string) (int, string) {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), long)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, k.url+"?"+query, strings.NewReader(body))
	if err != nil {
		k.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		k.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		k.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (k *kept) post(topic, body string, header ...string) {
	k.Helper()
	if status, text := k.request("POST", "topic="+url.QueryEscape(topic), body, header...); status != 200 {
		k.Fatalf("publish: %d %s", status, text)
	}
}

// reader is a durable subscriber.
type reader struct {
	*kept
	*websocket.Conn
}

// given is any frame that a durable subscriber gets.
type given struct {
	ID      string `json:"Id"`
	Header  map[string]string
	Body    []byte
	Attempt int
	Topic   string

	Error, Published string
}

func (k *kept) read(query string) *reader {
	k.Helper()
	ctx, cancel := context.WithTimeout(k.Context(), long)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, k.url+"?ack=true&"+query, nil)
	if err != nil {
		text := []byte{}
		if resp != nil {
			text, _ = io.ReadAll(resp.Body)
		}
		k.Fatalf("subscribe: %v %s", err, text)
	}
	conn.SetReadLimit(8 << 20)
	k.Cleanup(func() { _ = conn.CloseNow() })
	return &reader{k, conn}
}

func (r *reader) next() given {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), long)
	defer cancel()
	_, data, err := r.Conn.Read(ctx)
	if err != nil {
		r.Fatalf("read a frame: %v", err)
	}
	var g given
	if err := json.Unmarshal(data, &g); err != nil {
		r.Fatalf("frame %s: %v", data, err)
	}
	return g
}

func (r *reader) expect(body string, attempt int) given {
	r.Helper()
	g := r.next()
	if string(g.Body) != body || g.Attempt != attempt || g.Error != "" {
		r.Fatalf("frame %+v, want body %q, attempt %d", g, body, attempt)
	}
	return g
}

func (r *reader) say(frame string, args ...any) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), long)
	defer cancel()
	if err := r.Write(ctx, websocket.MessageText, fmt.Appendf(nil, frame, args...)); err != nil {
		r.Fatal(err)
	}
}

func (r *reader) complaint(about, text string) {
	r.Helper()
	if g := r.next(); g.ID != about || !strings.Contains(g.Error, text) {
		r.Fatalf("frame %+v, want an error about %q with %q", g, about, text)
	}
}

// eventually polls a condition of the engine.
func (k *kept) eventually(what string, ok func() bool) {
	k.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(long); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			k.Fatalf("not within %v: %s", long, what)
		}
	}
}

func (k *kept) info(topic, queue string) broker.QueueInfo {
	k.Helper()
	info, err := k.broker.Queue(k.Context(), topic, queue)
	if err != nil {
		k.Fatal(err)
	}
	return info
}

// settledAll waits until nothing is left in a queue.
func (k *kept) settledAll(topic, queue string) {
	k.Helper()
	k.eventually("everything is acknowledged", func() bool {
		i := k.info(topic, queue)
		return i.Lag+i.Held == 0
	})
}
