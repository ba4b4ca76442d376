package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/internal/httpmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wait bounds what must happen in these tests.
const wait = time.Minute

// fixture is a Messaging behind a real server.
type fixture struct {
	*testing.T
	*Messaging
	broker *memory.Broker
	url    string // of /broker
}

// serve starts a Messaging; change may alter its options.
func serve(t *testing.T, change func(*Options)) *fixture {
	t.Helper()
	b := memory.New()
	o := Options{Broker: b, Fail: fail, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if change != nil {
		change(&o)
	}
	m := New(o)
	server := httptest.NewServer(m)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		if err := m.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		server.Close()
		_ = b.Close()
	})
	return &fixture{T: t, Messaging: m, broker: b, url: server.URL + "/broker"}
}

// fail answers the way the api package does.
func fail(w http.ResponseWriter, _ *http.Request, err error) {
	var e *httpmsg.Error
	if !errors.As(err, &e) {
		e = httpmsg.Errorf(500, "not an httpmsg.Error: %v", err)
	}
	w.WriteHeader(e.Status)
	_, _ = io.WriteString(w, e.Detail)
}

// at returns the URL for a topic and a queue.
func (f *fixture) at(topic, queue string) string {
	q := url.Values{"topic": {topic}}
	if queue != "" {
		q.Set("queue", queue)
	}
	return f.url + "?" + q.Encode()
}

// client is a subscriber.
type client struct {
	*testing.T
	*websocket.Conn
}

func (f *fixture) dial(topic, queue string) *client {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), wait)
	defer cancel()
	conn, response, err := websocket.Dial(ctx, f.at(topic, queue), nil)
	if err != nil {
		f.Fatalf("subscribe: %v", err)
	}
	if got := response.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		f.Errorf("extensions were agreed on: %q", got)
	}
	conn.SetReadLimit(-1)
	f.Cleanup(func() { _ = conn.CloseNow() })
	return &client{f.T, conn}
}

// frame is what a program on the other side decodes.
type frame struct {
	Header map[string]string
	Body   []byte
}

// next reads one message.
func (c *client) next() frame {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), wait)
	defer cancel()
	kind, data, err := c.Read(ctx)
	if err != nil {
		c.Fatalf("read a frame: %v", err)
	}
	if kind != websocket.MessageText {
		c.Fatalf("a frame of type %v, want text", kind)
	}
	var got frame
	if err := json.Unmarshal(data, &got); err != nil {
		c.Fatalf("frame %.100q: %v", data, err)
	}
	if got.Header == nil {
		c.Fatalf("frame without Header: %.100q", data)
	}
	return got
}

// closed reads until the connection ends and returns how it did.
func (c *client) closed() (websocket.StatusCode, string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), 2*wait)
	defer cancel()
	for {
		_, _, err := c.Read(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			c.Fatal("the connection was not closed")
		}
		var e websocket.CloseError
		if errors.As(err, &e) {
			return e.Code, e.Reason
		}
		return -1, err.Error()
	}
}

// post publishes and returns the answer.
func (f *fixture) post(topic, contentType string, body io.Reader) (int, string) {
	f.Helper()
	request, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.at(topic, ""), body)
	if err != nil {
		f.Fatal(err)
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	return f.do(request)
}

func (f *fixture) do(request *http.Request) (int, string) {
	f.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func (f *fixture) publish(topic, body string) {
	f.Helper()
	if status, detail := f.post(topic, "", strings.NewReader(body)); status != 200 || detail != "" {
		f.Fatalf("publish: %d %q", status, detail)
	}
}

func (f *fixture) eventually(what string, ok func() bool) {
	f.Helper()
	for deadline := time.Now().Add(wait); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.Fatalf("not within %v: %s", wait, what)
		}
	}
}

// broken is a broker that fails.
type broken struct {
	broker.Broker
	err error
}

func (b broken) Publish(context.Context, string, broker.Message) error { return b.err }

func (b broken) Subscribe(context.Context, string, broker.SubscribeOptions, broker.Handler) (broker.Subscription, error) {
	return nil, b.err
}
