package socket

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWanted(t *testing.T) {
	for upgrade, want := range map[string]bool{
		"websocket": true, "WebSocket": true, "h2c, websocket": true, "h2c": false, "": false,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Upgrade", upgrade)
		if got := Wanted(r); got != want {
			t.Errorf("Upgrade: %q: %v, want %v", upgrade, got, want)
		}
	}
}

func TestAccept(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Accept(w, r, nil)
		if err != nil {
			t.Errorf("a handshake in order: %v", err)
			return
		}
		_ = conn.Close(websocket.StatusNormalClosure, "")
	}))
	defer server.Close()
	conn, _, err := websocket.Dial(t.Context(), server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the connection ended with %v", err)
	}
}

func TestAcceptRefuses(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "12")
	w := httptest.NewRecorder()
	_, err := Accept(w, r, nil)
	refusal, ok := errors.AsType[*httpmsg.Error](err)
	if !ok || refusal.Status != http.StatusBadRequest {
		t.Fatalf("error %#v, want a 400", err)
	}
	if w.Body.Len() > 0 || w.Header().Get("Sec-WebSocket-Version") != "13" {
		t.Errorf("answered %q with header %v", w.Body, w.Header())
	}
}
