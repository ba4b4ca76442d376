package transport

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/registry"
)

// startTLS starts a node with a certificate for example.com and 127.0.0.1.
func startTLS(t *testing.T, http2 bool, h http.HandlerFunc) (*httptest.Server, *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, trusting(s)
}

// trusting is the configuration of a client that trusts s.
func trusting(s *httptest.Server) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func showProtocol(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi")
			_ = conn.Close()
		}
		return
	}
	_, _ = io.Copy(w, io.MultiReader(strings.NewReader(r.Proto+" "), r.Body))
}

func TestTLSNodes(t *testing.T) {
	for _, test := range []struct {
		http2 bool
		want  string
	}{{true, "HTTP/2.0 hello"}, {false, "HTTP/1.1 hello"}} {
		s, config := startTLS(t, test.http2, showProtocol)
		c := newClient(t, Options{TLS: config})
		for _, peer := range []discovery.Peer{
			{Addr: s.Listener.Addr().String(), TLS: true}, {Addr: s.Listener.Addr().String(), TLS: true, ServerName: "example.com"},
		} {
			for range 3 {
				if _, body := exchange2(t, c, peer, post(strings.NewReader("hello"), 5)); body != test.want {
					t.Errorf("%+v: %q, want %q", peer, body, test.want)
				}
			}
			r := get("/")
			r.Header = httpmsg.Header{{Name: "Connection", Value: "Upgrade"}, {Name: "Upgrade", Value: "echo"}}
			res, err := c.Do(t.Context(), peer, r)
			if err != nil || res.Status != 101 {
				t.Fatal(res, err)
			}
			b := make([]byte, 2)
			if _, err := io.ReadFull(res.Conn, b); err != nil || string(b) != "hi" {
				t.Errorf("behind the upgrade: %q, %v", b, err)
			}
			_ = res.Conn.Close()
		}
		_, err := c.Do(t.Context(), discovery.Peer{Addr: s.Listener.Addr().String(), TLS: true, ServerName: "example.org"}, get("/"))
		if wrong := (x509.HostnameError{}); !errors.As(err, &wrong) || !NotSent(err) {
			t.Errorf("a certificate for somebody else: %v", err)
		}
		_, err = newClient(t, Options{}).Do(t.Context(), discovery.Peer{Addr: s.Listener.Addr().String(), TLS: true}, get("/"))
		if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) || !NotSent(err) {
			t.Errorf("a certificate of nobody known: %v", err)
		}
	}
}

// Requests that come at once to a node that speaks HTTP/2 share a connection,
// those to one that does not get their own.
func TestTLSNodesAtOnce(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		var inside, most atomic.Int32
		release := make(chan struct{})
		s, config := startTLS(t, http2, func(_ http.ResponseWriter, r *http.Request) {
			most.Store(max(most.Load(), inside.Add(1)))
			<-release
		})
		c := newClient(t, Options{TLS: config})
		peer := discovery.Peer{Addr: s.Listener.Addr().String(), TLS: true}
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				res, err := c.Do(t.Context(), peer, get("/"))
				if err != nil {
					t.Error(err)
					return
				}
				_ = res.Body.Close()
			})
		}
		wait(t, "all are inside", func() bool { return inside.Load() == 20 })
		close(release)
		all.Wait()
	}
}

func TestTLSToANodeWithout(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return empty, true })
	c := newClient(t, Options{DialTimeout: time.Second})
	if _, err := c.Do(t.Context(), discovery.Peer{Addr: w.addr, TLS: true}, get("/")); !NotSent(err) || !strings.Contains(err.Error(), "TLS handshake") {
		t.Errorf("%v", err)
	}
}

func TestUnixNodes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	node := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.Host)
	})}
	node.Protocols.SetHTTP1(true)
	node.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = node.Serve(l)
	}()
	defer func() { _ = node.Close(); <-done }()

	c := newClient(t, Options{})
	for protocol, want := range map[string]string{"": "HTTP/1.1 example.com", "grpc": "HTTP/2.0 example.com"} {
		n := discovery.NewNode(registry.Node{ID: "n", Address: "unix:" + path, Metadata: map[string]string{"protocol": protocol}}, "")
		if n.Peer.Addr != "unix:"+path {
			t.Errorf("peer %+v", n.Peer)
		}
		for range 2 {
			if _, body := exchange2(t, c, n.Peer, get("/")); body != want {
				t.Errorf("%q, want %q", body, want)
			}
		}
	}
	gone := discovery.Peer{Addr: "unix:" + path + ".not"}
	if _, err := c.Do(t.Context(), gone, get("/")); !NotSent(err) || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
}

// The sidecar's own requests to a unix socket are for localhost.
func TestUnixCallsHaveAHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	hosts := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		hosts <- r.Host
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n{\"id\":0,\"result\":{},\"error\":null}\n")
	}()
	c := newClient(t, Options{})
	n := discovery.NewNode(registry.Node{ID: "n", Address: "unix:" + path}, "")
	if _, err := c.Call(t.Context(), n, Call{Service: "s", Method: "S.M"}); err != nil {
		t.Error(err)
	}
	if host := <-hosts; host != "localhost" {
		t.Errorf("host %q", host)
	}
}
