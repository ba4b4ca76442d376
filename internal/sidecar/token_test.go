package sidecar

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/auth"
)

const goodToken = "secret-of-alice"

// withTokens is a sidecar that knows goodToken.
func withTokens(t *testing.T) func(*Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("alice:"+goodToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Tokens, c.EnableStats = tokens, true }
}

// Every path asks for a token, but those of probes. Authorization is the
// sidecar's on its own exact paths alone.
func TestEveryPathAsksForAToken(t *testing.T) {
	s := run(t, withTokens(t))
	bearer := []string{"Authorization", "Bearer " + goodToken}
	for _, path := range []string{"/livez", "/readyz", "/health"} {
		s.expect(200, "ok\n", "GET", path, "", "")
	}
	for _, path := range []string{"/registry", "/stats", "/metrics", "/broker?topic=t", "/foo/bar", "/foo", "/", "/livez/x", "//livez"} {
		for _, wrong := range [][]string{nil, {auth.Header, "wrong"}, {auth.Header, "alice"}, {"Authorization", "Bearer wrong"}, {"Authorization", "Basic " + goodToken}} {
			s.refused(401, "token", "POST", path, "application/json", "{}", wrong...)
		}
		if status, text := s.try("POST", path, "application/json", "{}", auth.Header, goodToken); status == 401 {
			t.Errorf("%s with a good token: %d %s", path, status, text)
		}
	}
	s.refused(401, "token", "POST", "/rpc", "application/json", "{}")
	s.refused(400, "service", "POST", "/rpc", "application/json", "{}", bearer...)
	s.expect(200, "[]", "GET", "/registry", "", "", bearer...)
	s.refused(401, "token", "POST", "/foo/bar", "application/json", "{}", bearer...)
	s.refused(401, "token", "GET", "/foo/bar", "", "", "Micro-Handler", "proxy")
	if _, _, h := s.full("GET", "/registry", "", ""); h.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("WWW-Authenticate: %q", h.Get("WWW-Authenticate"))
	}
}

// No token goes on to a node or into a message; the node's own Authorization
// does.
func TestTokensStayHere(t *testing.T) {
	n, seen := answering(t, func(head, _ string) string {
		if strings.HasPrefix(head, "GET") {
			return ok204
		}
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 33\r\n\r\n" + `{"id":0,"error":null,"result":{}}`
	})
	s := run(t, withTokens(t))
	s.try("POST", "/registry", "application/json",
		`{"Name":"go.micro.srv.foo","Nodes":[{"Id":"n","Address":"`+n.l.Addr().String()+`"}]}`, auth.Header, goodToken)

	s.expect(204, "", "GET", "/foo/x", "", "", auth.Header, goodToken, "Micro-Handler", "proxy", "Authorization", "Bearer of-the-node")
	if head := <-seen; strings.Contains(head, goodToken) || !strings.Contains(head, "Bearer of-the-node") {
		t.Errorf("the proxied node saw:\n%s", head)
	}
	s.try("POST", "/foo/bar", "application/json", "{}", auth.Header, goodToken, "Authorization", "Bearer of-the-node")
	if head := <-seen; strings.Contains(head, goodToken) || !strings.Contains(head, "Bearer of-the-node") {
		t.Errorf("the called node saw:\n%s", head)
	}
	s.try("POST", "/rpc", "application/json", `{"service":"go.micro.srv.foo","method":"A.B","request":{}}`, "Authorization", "Bearer "+goodToken)
	if head := <-seen; strings.Contains(head, goodToken) || strings.Contains(head, "Authorization") {
		t.Errorf("the node called by /rpc saw:\n%s", head)
	}
	conn, _, err := websocket.Dial(t.Context(), s.url+"/broker?topic=t", &websocket.DialOptions{Subprotocols: offer(goodToken)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	s.expect(200, "", "POST", "/broker?topic=t", "text/plain", "hello", "Authorization", "Bearer "+goodToken)
	_, frame, err := conn.Read(t.Context())
	if err != nil || bytes.Contains(frame, []byte(goodToken)) || bytes.Contains(frame, []byte("Authorization")) {
		t.Errorf("message %s, %v", frame, err)
	}
}

// A browser asks a person for the token of /stats, and sends it from then on by
// itself: it counts there alone, is of no use to other pages and goes nowhere.
func TestTokenAsAPassword(t *testing.T) {
	n, seen := answering(t, func(_, _ string) string { return ok204 })
	with := withTokens(t)
	s := run(t, func(c *Config) { with(c); c.CORS = []string{"*"} })
	s.try("POST", "/registry", "application/json",
		`{"Name":"go.micro.srv.foo","Nodes":[{"Id":"n","Address":"`+n.l.Addr().String()+`"}]}`, auth.Header, goodToken)

	if status, _, h := s.full("GET", "/stats", "", "", "Accept", "text/html"); status != 401 || !slices.Equal(h.Values("WWW-Authenticate"), []string{"Bearer", `Basic realm="micro"`}) {
		t.Errorf("%d %v", status, h)
	}
	basic := func(password string) []string {
		return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+password))}
	}
	for _, accept := range []string{"text/html", "application/json"} {
		if status, text := s.try("GET", "/stats", "", "", append(basic(goodToken), "Accept", accept)...); status != 200 {
			t.Errorf("%s: %d %s", accept, status, text)
		}
	}
	s.refused(401, "token", "GET", "/stats", "", "", basic("wrong")...)
	s.refused(403, "page of another origin", "GET", "/stats", "", "", append(basic(goodToken), "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors")...)
	for _, path := range []string{"/registry", "/metrics", "/broker?topic=t", "/rpc", "/foo/bar"} {
		for _, from := range []string{"https://evil.example", s.url} {
			s.refused(401, "token", "POST", path, "application/json", "{}", append(basic(goodToken), "Origin", from)...)
		}
	}
	if _, resp, err := websocket.Dial(t.Context(), s.url+"/broker?topic=t", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": basic(goodToken)[1:], "Origin": {"https://evil.example"}}}); err == nil || resp.StatusCode != 401 {
		t.Errorf("a foreign page's WebSocket: %v", err)
	}
	s.expect(204, "", "GET", "/foo/x", "", "", append(basic(goodToken), auth.Header, goodToken, "Micro-Handler", "proxy")...)
	if head := <-seen; strings.Contains(head, "Authorization") {
		t.Errorf("the node saw:\n%s", head)
	}
	s.expect(204, "", "GET", "/foo/x", "", "", append(basic("of-the-node"), auth.Header, goodToken, "Micro-Handler", "proxy")...)
	if head := <-seen; !strings.Contains(head, basic("of-the-node")[1]) {
		t.Errorf("the node's own password did not come to it:\n%s", head)
	}
}

// Without "*" the guard stands before the password.
func TestForeignPagesHaveNoUseOfThePassword(t *testing.T) {
	s := run(t, withTokens(t))
	for _, path := range []string{"/stats", "/registry", "/broker?topic=t", "/rpc", "/foo/bar"} {
		s.refused(403, "origin", "POST", path, "application/json", "{}", "Origin", "https://evil.example",
			"Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("me:"+goodToken)))
	}
}

// offer is what a page in a browser offers.
func offer(token string, more ...string) []string {
	return append(more, auth.Protocol, auth.ProtocolToken+base64.RawURLEncoding.EncodeToString([]byte(token)))
}

// A page shows its token in a subprotocol, on every kind of WebSocket.
func TestTokenOfAWebSocket(t *testing.T) {
	asked := make(chan string, 1)
	chosen := ""
	echo := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Sec-WebSocket-Protocol")
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{chosen}, InsecureSkipVerify: true})
		if err == nil {
			_ = conn.Close(websocket.StatusNormalClosure, "")
		}
	})
	s := run(t, withTokens(t))
	s.try("POST", "/registry", "application/json",
		`{"Name":"go.micro.srv.foo","Nodes":[{"Id":"n","Address":"`+echo.Listener.Addr().String()+`"}]}`, auth.Header, goodToken)

	for _, path := range []string{"/broker?topic=t", "/registry"} {
		conn, _, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{Subprotocols: offer(goodToken)})
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if conn.Subprotocol() != auth.Protocol {
			t.Errorf("%s: subprotocol %q", path, conn.Subprotocol())
		}
		conn.CloseNow()
		if _, resp, err := websocket.Dial(t.Context(), s.url+path, &websocket.DialOptions{Subprotocols: offer("wrong-token")}); err == nil || resp.StatusCode != 401 {
			t.Errorf("%s with a wrong token: %v", path, err)
		}
	}
	proxied := http.Header{"Micro-Handler": {"proxy"}}
	for _, test := range []struct{ offered, chosen, asked, want string }{
		{"", "", "", auth.Protocol}, {"chat", "", "chat", auth.Protocol}, {"chat", "chat", "chat", "chat"},
	} {
		chosen = test.chosen
		var protocols []string
		if test.offered != "" {
			protocols = []string{test.offered}
		}
		conn, _, err := websocket.Dial(t.Context(), s.url+"/foo/x", &websocket.DialOptions{HTTPHeader: proxied, Subprotocols: offer(goodToken, protocols...)})
		if err != nil {
			t.Fatal(err)
		}
		conn.CloseNow()
		if got := <-asked; got != test.asked || conn.Subprotocol() != test.want {
			t.Errorf("%+v: the node was asked for %q, the client got %q", test, got, conn.Subprotocol())
		}
	}
}

// A service with the subprotocol "micro" of its own is left alone.
func TestForeignSubprotocol(t *testing.T) {
	asked := make(chan string, 1)
	n := startHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Sec-WebSocket-Protocol")
		w.WriteHeader(http.StatusNoContent)
	})
	s := run(t, func(c *Config) { c.Handler = "proxy" })
	s.register("go.micro.srv.foo", "n", n, "")
	_, _, err := websocket.Dial(t.Context(), s.url+"/foo/x", &websocket.DialOptions{Subprotocols: []string{"micro", "chat"}})
	if err == nil {
		t.Fatal("the node has refused")
	}
	if got := <-asked; got != "micro,chat" {
		t.Errorf("the node was asked for %q", got)
	}
}

// gRPC clients are told in their form, over HTTP/2.
func TestTokenOfGRPC(t *testing.T) {
	s := run(t, withTokens(t))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, s.url+"/foo/bar", strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status")+resp.Trailer.Get("Grpc-Status") != "16" {
		t.Errorf("%d %v %v", resp.StatusCode, resp.Header, resp.Trailer)
	}
}

// A preflight carries no token, and is answered.
func TestPreflightNeedsNoToken(t *testing.T) {
	with := withTokens(t)
	s := run(t, func(c *Config) { with(c); c.CORS = []string{"https://app.example"} })
	status, _, h := s.full("OPTIONS", "/registry", "", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "micro-token")
	if status != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" || h.Get("Access-Control-Allow-Headers") != "micro-token" {
		t.Errorf("%d %v", status, h)
	}
}

// The token never shows in what the sidecar logs or says.
func TestTokenIsNotTold(t *testing.T) {
	s := run(t, withTokens(t))
	_, text := s.try("GET", "/registry", "", "", auth.Header, goodToken+"x")
	var e struct{ Detail string }
	if err := json.Unmarshal([]byte(text), &e); err != nil || strings.Contains(text, goodToken) {
		t.Errorf("%s", text)
	}
	s.expect(200, "[]", "GET", "/registry", "", "", auth.Header, goodToken)
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String(), goodToken) {
		t.Error("the log shows the token")
	}
}
