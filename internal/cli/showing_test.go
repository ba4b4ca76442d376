package cli

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/micro/sidecar/internal/testserver"
)

// Commands show their token, over HTTP and WebSockets, and their certificate;
// what is wrong with either is said.
func TestShowing(t *testing.T) {
	authority := testserver.NewAuthority(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Micro-Token") != "secret-of-alice":
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/broker":
			if conn, err := websocket.Accept(w, r, nil); err == nil {
				_ = conn.Close(websocket.StatusGoingAway, "the end")
			}
		default:
			_, _ = w.Write([]byte(`[{"name":"found"}]`))
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Certificate()}, ClientCAs: authority.Pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("alice:secret-of-alice\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := authority.Issue(time.Now().Add(time.Hour))
	d := someDrivers(t)
	through := "--proxy_address=" + server.URL
	ca, shown := "--ca_file="+authority.File, []string{"--client_cert_file=" + cert, "--client_key_file=" + key}
	list := append([]string{"list", "services", through, ca}, shown...)

	if got := works(t, d, nil, append(list, "--token_file="+file)...); got != "found\n" {
		t.Errorf("with --token_file: %q", got)
	}
	if got := works(t, d, []string{"MICRO_TOKEN=secret-of-alice"}, list...); got != "found\n" {
		t.Errorf("with MICRO_TOKEN: %q", got)
	}
	if got := micro(t, d, []string{"MICRO_TOKEN=secret-of-alice"}, append([]string{"subscribe", "t", through, ca}, shown...)...); !strings.Contains(got.err, "ended the subscription: the end") {
		t.Errorf("subscribe: %q", got.err)
	}
	fails(t, d, nil, "asks for a token", list...)
	host := strings.TrimPrefix(server.URL, "https://")
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	other := strings.TrimPrefix(plain.URL, "http://")
	for _, command := range [][]string{{"list", "services"}, {"call", "a", "b"}, {"watch"}, {"stream", "a", "b"}, {"subscribe", "t"}, {"publish", "t", "x"}} {
		fails(t, d, nil, "the sidecar at "+host+" speaks TLS: --proxy_address=https://"+host+"\n", append(command, "--proxy_address="+host)...)
		fails(t, d, nil, "does not speak TLS: --proxy_address=http://"+other+"\n", append(command, "--proxy_address=https://"+other)...)
	}
	fails(t, d, []string{"MICRO_TOKEN=wrong"}, "asks for a token", list...)
	fails(t, d, nil, "--ca_file names one", append([]string{"list", "services", through}, shown...)...)
	fails(t, d, nil, "certificate required", "list", "services", through, ca)
	fails(t, d, nil, "asks for a token", append([]string{"subscribe", "t", through, ca}, shown...)...)
}
