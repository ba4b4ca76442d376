package sidecar

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/testserver"
)

// everyListener is a sidecar with a proxied node, and the ways to it.
type everyListener struct {
	*running
	socket string
	seen   <-chan string
}

func listenAll(t *testing.T, secure bool) *everyListener {
	t.Helper()
	n, seen := answering(t, func(string, string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Node: n\r\n\r\nhello" })
	l := &everyListener{socket: filepath.Join(t.TempDir(), "sock"), seen: seen}
	l.running = proxying(t, n, func(c *Config) {
		c.Addresses = append(c.Addresses, "unix:"+l.socket)
		if secure {
			authority := testserver.NewAuthority(t)
			c.TLS = &tls.Config{Certificates: []tls.Certificate{authority.Certificate()}, RootCAs: authority.Pool}
		}
	})
	return l
}

// client returns a client of the socket or of the TCP listener, and the URL to
// begin with.
func (l *everyListener) client(t *testing.T, socket, two bool) (*http.Client, string) {
	t.Helper()
	protocols, base := new(http.Protocols), l.url
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{RootCAs: l.trust}}
	if socket {
		base = "http://any.example"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", l.socket)
		}
	}
	protocols.SetHTTP1(!two)
	protocols.SetHTTP2(two && strings.HasPrefix(base, "https"))
	protocols.SetUnencryptedHTTP2(two && !strings.HasPrefix(base, "https"))
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}, base
}

// A node gets the same request whichever way it came in, and is told the way.
func TestProxyThroughEveryListener(t *testing.T) {
	for _, secure := range []bool{false, true} {
		l := listenAll(t, secure)
		for _, socket := range []bool{false, true} {
			for _, two := range []bool{false, true} {
				client, base := l.client(t, socket, two)
				resp, err := client.Get(base + "/foo/a%2Fb?x")
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != "hello" || resp.Header.Get("X-Node") != "n" || resp.Header.Get("Date") != "" || (resp.ProtoMajor == 2) != two {
					t.Errorf("%s %q %v, %v", resp.Proto, body, resp.Header, err)
				}
				proto, from := "http", ""
				if secure && !socket {
					proto = "https"
				}
				if !socket {
					from = "X-Forwarded-For: 127.0.0.1\r\n"
				}
				host := strings.SplitN(base, "//", 2)[1]
				want := fmt.Sprintf("GET /foo/a%%2Fb?x HTTP/1.1\r\nHost: %s\r\nAccept-Encoding: gzip\r\nUser-Agent: Go-http-client/%d.1\r\n%sX-Forwarded-Host: %s\r\nX-Forwarded-Proto: %s\r\n\r\n", host, resp.ProtoMajor, from, host, proto)
				if two {
					want = strings.Replace(want, "/2.1", "/2.0", 1)
				}
				if got := <-l.seen; sortedHead(got) != sortedHead(want) {
					t.Errorf("the node got\n%s\nwant\n%s", sortedHead(got), sortedHead(want))
				}
				// The own paths and RPC are open, too: whatever Host is on a socket.
				if resp, err := client.Get(base + "/registry"); err != nil || resp.StatusCode != 200 {
					t.Errorf("/registry: %v, %v", resp, err)
				} else {
					resp.Body.Close()
				}
			}
		}
	}
}

// A small answer over HTTP/2 is a head and one piece, with nothing behind.
func TestSmallAnswersOverHTTP2(t *testing.T) {
	l := listenAll(t, false)
	conn, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fmt.Fprint(conn, http2.ClientPreface)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/foo/"}, {Name: ":authority", Value: "h"}} {
		if err := encoder.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for ended := false; !ended; {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got = append(got, "HEADERS "+f.PseudoValue("status"))
			ended = f.StreamEnded()
		case *http2.DataFrame:
			got = append(got, fmt.Sprintf("DATA %s %v", f.Data(), f.StreamEnded()))
			ended = f.StreamEnded()
		}
	}
	if want := "HEADERS 200|DATA hello true"; strings.Join(got, "|") != want {
		t.Errorf("the answer came as %q, want %q", got, want)
	}
}

// What the sidecar itself has to say to a gRPC client is in gRPC's form.
func TestErrorsToGRPCClients(t *testing.T) {
	l := listenAll(t, true)
	client, base := l.client(t, false, true)
	for path, want := range map[string]string{
		"/nosuch/Method": `14 service go.micro.srv.nosuch not found`,
		"/":              `12 the path names no service: /[service]/… was expected`,
	} {
		resp, err := client.Post(base+path, "application/grpc", strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		h := resp.Header
		message := strings.ReplaceAll(h.Get("Grpc-Message"), "%E2%80%A6", "…")
		if err != nil || resp.StatusCode != 200 || len(body) > 0 || h.Get("Content-Type") != "application/grpc" || h.Get("Grpc-Status")+" "+message != want {
			t.Errorf("%s: %d %v %q, %v; want %s", path, resp.StatusCode, h, body, err, want)
		}
	}
}
