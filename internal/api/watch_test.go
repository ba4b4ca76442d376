package api

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// hanging is a registry that answers nothing.
type hanging struct{ registry.Registry }

func (hanging) Watch(ctx context.Context, _ func(registry.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

// watchers are the requests for the two kinds of stream.
func watchers() map[string]http.Header {
	return map[string]http.Header{
		"events": {"Accept": {"text/event-stream"}},
		"socket": {
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		},
	}
}

func TestAWatchThatCannotBeginIsToldSo(t *testing.T) {
	for kind, header := range watchers() {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, hanging{})
				r := httptest.NewRequest(http.MethodGet, "/registry", nil)
				r.Header = header
				w := asked(t, a, r)
				if said := detail(t, w.Code, w.Body.Bytes()); w.Code != 503 || !strings.Contains(said, "in time") {
					t.Errorf("answer %d %s", w.Code, said)
				}
			})
		})
	}
}

func TestStopRefusesWatches(t *testing.T) {
	for kind, header := range watchers() {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAPI(t, hanging{})
				answers := make(chan *httptest.ResponseRecorder)
				ask := func() {
					r := httptest.NewRequest(http.MethodGet, "/registry", nil)
					r.Header = header
					answers <- asked(t, a, r)
				}
				go ask() // which is under way when the API stops
				synctest.Wait()
				if err := a.Stop(t.Context()); err != nil {
					t.Error(err)
				}
				go ask() // which comes after that
				for range 2 {
					w := <-answers
					if said := detail(t, w.Code, w.Body.Bytes()); w.Code != 503 || said != "the sidecar is shutting down" {
						t.Errorf("answer %d %s", w.Code, said)
					}
				}
			})
		})
	}
}

func TestAHandshakeOutOfOrderIsAnErrorOfOurs(t *testing.T) {
	a := newAPI(t, memory.New())
	r := httptest.NewRequest(http.MethodGet, "/registry", nil)
	r.Header = watchers()["socket"]
	r.Header.Del("Sec-Websocket-Key")
	w := asked(t, a, r)
	if said := detail(t, w.Code, w.Body.Bytes()); w.Code != 400 || !strings.Contains(said, "Sec-WebSocket-Key") {
		t.Errorf("answer %d %s", w.Code, said)
	}
}

// serve puts the API's own paths on a listener.
func serve(t *testing.T, a *API) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Own(r.URL.Path).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestWatchSocket(t *testing.T) {
	a := newAPI(t, memory.New())
	url := serve(t, a)
	conn, _, err := websocket.Dial(t.Context(), url+"/registry?service=foo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	asked(t, a, httptest.NewRequest(http.MethodPost, "/registry", strings.NewReader(foo)))
	if _, frame, err := conn.Read(t.Context()); err != nil || !strings.HasPrefix(string(frame), `{"Action":"create","Service":{"name":"foo"`) {
		t.Errorf("frame %s, %v", frame, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop(t.Context()) }()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the stream ended with %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// What a watcher says is dropped, and its pings are answered behind it.
func TestWatchSocketOfWhoTalks(t *testing.T) {
	a := newAPI(t, memory.New())
	conn, _, err := websocket.Dial(t.Context(), serve(t, a)+"/registry", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseNow() }()
	for _, size := range []int{5, 1 << 20} {
		if err := conn.Write(t.Context(), websocket.MessageText, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Ping(conn.CloseRead(t.Context())); err != nil { // everything before it was read
		t.Fatal(err)
	}
	_ = conn.Close(websocket.StatusNormalClosure, "") // on a busy machine the answer may be late
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestWatchEvents(t *testing.T) {
	a := newAPI(t, memory.New())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, serve(t, a)+"/registry", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	asked(t, a, httptest.NewRequest(http.MethodPost, "/registry", strings.NewReader(foo)))
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "data: ") {
	}
	if !strings.HasPrefix(lines.Text(), `data: {"Action":"create","Service":{"name":"foo"`) {
		t.Errorf("event %q, %v", lines.Text(), lines.Err())
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream was cut: %v", err)
	}
}

func TestHeadIsNoStream(t *testing.T) {
	a := newAPI(t, memory.New())
	for kind, header := range watchers() {
		r := httptest.NewRequest(http.MethodHead, "/registry", nil)
		r.Header = header
		if w := asked(t, a, r); w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v", kind, w.Code, w.Header())
		}
	}
}
