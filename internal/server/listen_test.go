package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

// ways are the ways in of a client: to each its server and its transport.
var ways = []string{"HTTP/1.1", "HTTP/1.1 over net/http", "HTTP/1.1 over TLS", "HTTP/1.1 over TLS and net/http", "HTTP/2", "HTTP/2 over TLS", "unix", "HTTP/2 over unix"}

// through starts a server and returns a client that talks to it the given way,
// and the URL to begin with.
func through(t *testing.T, way string, r routes) (*started, *http.Client, string) {
	t.Helper()
	o := Options{Addresses: []string{"127.0.0.1:0"}}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	transport := &http.Transport{Protocols: protocols, DisableCompression: true}
	scheme := "http"
	if strings.Contains(way, "TLS") {
		authority := testserver.NewAuthority(t)
		o.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Certificate()}}
		transport.TLSClientConfig = &tls.Config{RootCAs: authority.Pool}
		scheme = "https"
	}
	if strings.HasPrefix(way, "HTTP/2") {
		*protocols = http.Protocols{}
		protocols.SetHTTP2(scheme == "https")
		protocols.SetUnencryptedHTTP2(scheme == "http")
	}
	if strings.Contains(way, "unix") {
		o.Addresses[0] = "unix:" + filepath.Join(t.TempDir(), "s")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", strings.TrimPrefix(o.Addresses[0], "unix:"))
		}
	}
	s := startWith(t, o, r)
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
	host := s.addr
	if strings.Contains(way, "unix") {
		host = "localhost"
	}
	if strings.Contains(way, "net/http") { // the rest of the connection is
		resp, err := client.Get(scheme + "://" + host + "/own")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return s, client, scheme + "://" + host
}

func TestEveryWayIn(t *testing.T) {
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			r := routes{
				own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, "own TLS=%v loopback=%v %s", r.TLS != nil, httpmsg.OnLoopback(r.Context()), r.RemoteAddr)
				}},
				serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return err
					}
					text := fmt.Sprintf("%s %s %s TLS=%v loopback=%v %s", r.Method, r.Target, body, r.TLS, r.Loopback, r.RemoteAddr)
					_ = w.Head(200, httpmsg.Header{{Name: "X-Seen", Value: r.Header.Get("X-Sent")}}, int64(len(text)))
					_, err = io.WriteString(w, text)
					return err
				},
			}
			_, client, base := through(t, way, r)
			for range 2 {
				req, _ := http.NewRequest("POST", base+"/a%2Fb//c?x=%20&y", strings.NewReader("body"))
				req.Header.Set("X-Sent", "value")
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				secure := strings.Contains(way, "TLS")
				want := fmt.Sprintf("POST /a%%2Fb//c?x=%%20&y body TLS=%v loopback=%v ", secure, !strings.Contains(way, "unix"))
				if !strings.HasPrefix(string(body), want) || resp.Header.Get("X-Seen") != "value" {
					t.Errorf("got %q, want %q", body, want)
				}
				if strings.Contains(way, "unix") != strings.HasSuffix(string(body), " @") {
					t.Errorf("the client's address in %q", body)
				}
				if (resp.ProtoMajor == 2) != strings.HasPrefix(way, "HTTP/2") || (resp.TLS != nil) != secure {
					t.Errorf("%s, TLS %v", resp.Proto, resp.TLS != nil)
				}
			}
			resp, err := client.Get(base + "/own")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := fmt.Sprintf("own TLS=%v loopback=%v ", strings.Contains(way, "TLS"), !strings.Contains(way, "unix")); !strings.HasPrefix(string(body), want) {
				t.Errorf("got %q, want %q", body, want)
			}
		})
	}
}

// Each listener says for itself whether others than this machine reach it: one
// on all interfaces does not become loopback's for a client that is here.
func TestLoopbackOfEachListener(t *testing.T) {
	r := routes{
		own: map[string]http.HandlerFunc{"/own": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, httpmsg.OnLoopback(r.Context()))
		}},
		serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			_ = w.Head(200, nil, -1)
			_, err := fmt.Fprint(w, r.Loopback)
			return err
		},
	}
	// The second is given the port of the first.
	s := startWith(t, Options{Addresses: []string{"0.0.0.0:0", "[::1]:0"}}, r)
	_, port, _ := net.SplitHostPort(s.addr)
	want := map[string]string{"127.0.0.1:" + port: "false"}
	if len(s.Addresses()) == 2 {
		want["[::1]:"+port] = "true"
	} else {
		t.Log("this machine has no IPv6: one listener less")
	}
	for address, loopback := range want {
		for _, two := range []bool{false, true} {
			protocols := new(http.Protocols)
			protocols.SetHTTP1(!two)
			protocols.SetUnencryptedHTTP2(two)
			transport := &http.Transport{Protocols: protocols}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
			for _, path := range []string{"/a", "/own", "/a"} { // the last one by net/http
				resp, err := client.Get("http://" + address + path)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != loopback {
					t.Errorf("%s%s, HTTP/2 %v: loopback %q, %v, want %s", address, path, two, body, err, loopback)
				}
			}
		}
	}
}

func TestUnixSocketFiles(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	path := filepath.Join(dir, "sock")
	first, err := bind(t, log, "unix:"+path, "127.0.0.1:0", "[::1]:0")
	if err != nil {
		t.Fatal(err)
	}
	if !first.Loopback() {
		t.Error("a unix socket is not seen as loopback")
	}
	addresses := first.Addresses()
	if addresses[0] != "unix:"+path || len(addresses) > 2 && addresses[2] != strings.Replace(addresses[1], "127.0.0.1", "[::1]", 1) {
		t.Errorf("bound to %v", addresses)
	}
	if _, err := bind(t, log, "unix:"+path); err == nil || err.Error() != "listen on unix:"+path+": another program answers there; choose another path with --address" {
		t.Errorf("a socket in use: %v", err)
	}
	if _, err := bind(t, log, "127.0.0.1:0", "unix:"+path); err == nil {
		t.Error("a socket in use is passed over")
	}
	closeAll(first)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after closing: %v", err)
	}

	// What a killed program leaves behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	second, err := bind(t, log, "unix:"+path)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	// Somebody else's is left alone.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	third, err := bind(t, log, "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(second)
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the second removed what is the third's: %v", err)
	}
	closeAll(third)

	for name, what := range map[string]string{"file": "something else than a socket", "missing/sock": "no such file", strings.Repeat("x", 200): "about 100 bytes"} {
		at := filepath.Join(dir, name)
		if name == "file" {
			if err := os.WriteFile(at, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := bind(t, log, "unix:"+at); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "file")); string(b) != "precious" {
		t.Error("a file was overwritten")
	}
}

// After an error nothing is left open.
func TestBindLeavesNothingBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	if _, err := bind(t, slog.New(slog.DiscardHandler), "unix:"+path, "unix:"+path); err == nil {
		t.Fatal("bound twice")
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}
