package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/testserver"
)

// secure starts a server with TLS and returns what its clients need.
func secure(t *testing.T, r routes) (*started, *tls.Config) {
	t.Helper()
	authority := testserver.NewAuthority(t)
	s := startWith(t, Options{
		Addresses: []string{"127.0.0.1:0"},
		TLS:       &tls.Config{Certificates: []tls.Certificate{authority.Certificate()}},
	}, r)
	return s, &tls.Config{RootCAs: authority.Pool, ServerName: "localhost"}
}

// dialTLS connects with TLS and HTTP/1.1.
func (s *started) dialTLS(t *testing.T, config *tls.Config) *tls.Conn {
	t.Helper()
	return tls.Client(s.dial(t), config)
}

func TestPlainHTTPToTLS(t *testing.T) {
	s, _ := secure(t, routes{serve: hello})
	got, err := s.talk(t, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
	if err != nil || got != "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
	for begun := time.Now(); len(s.counted()) == 0 && time.Since(begun) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	if counts := s.counted(); len(counts) != 1 || counts[0] != 400 {
		t.Errorf("counted %v", counts)
	}
	// What is neither gets no answer, as HTTP would mean nothing to it.
	if got, err := s.talk(t, "SSH-2.0-OpenSSH_9.6\r\n"); got != "" && !strings.HasPrefix(got, "\x15\x03") {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTLSVersionsAndProtocols(t *testing.T) {
	s, config := secure(t, routes{serve: hello})
	for name, test := range map[string]struct {
		change func(*tls.Config)
		proto  string
		fails  bool
	}{
		"1.3, no ALPN":      {change: func(*tls.Config) {}},
		"1.2, h2":           {change: func(c *tls.Config) { c.MaxVersion, c.NextProtos = tls.VersionTLS12, []string{"h2"} }, proto: "h2"},
		"1.1":               {change: func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, fails: true},
		"h2 goes first":     {change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} }, proto: "h2"},
		"http/1.1":          {change: func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, proto: "http/1.1"},
		"something unknown": {change: func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }, fails: true},
		"a weak cipher": {change: func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			config := config.Clone()
			test.change(config)
			conn := s.dialTLS(t, config)
			err := conn.Handshake()
			if (err != nil) != test.fails || conn.ConnectionState().NegotiatedProtocol != test.proto {
				t.Errorf("%v, protocol %q", err, conn.ConnectionState().NegotiatedProtocol)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	authority := testserver.NewAuthority(t)
	s := startWith(t, Options{
		Addresses: []string{"127.0.0.1:0"},
		TLS: &tls.Config{
			Certificates: []tls.Certificate{authority.Certificate()},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool,
		},
	}, routes{serve: hello})
	for name, certificates := range map[string][]tls.Certificate{
		"good":         {authority.Certificate()},
		"none":         nil,
		"of a foreign": {testserver.NewAuthority(t).Certificate()},
	} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool, Certificates: certificates}, ForceAttemptHTTP2: true}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + s.addr + "/")
		if (err == nil) != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			resp.Body.Close()
		}
		transport.CloseIdleConnections()
	}
}

// HTTP/2 over TLS is negotiated: its preface on another protocol is nothing.
func TestHTTP2OverTLSIsNegotiated(t *testing.T) {
	s, config := secure(t, routes{serve: hello})
	conn := s.dialTLS(t, config)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("%v, %v", resp, err)
	}
}

// Who says nothing, or half a hello, does not hold up the others or the end.
func TestUnfinishedHandshakes(t *testing.T) {
	s, config := secure(t, routes{serve: hello})
	s.dial(t)
	half := s.dial(t)
	if _, err := half.Write([]byte{0x16, 3, 1, 2}); err != nil {
		t.Fatal(err)
	}
	conn := s.dialTLS(t, config)
	fmt.Fprint(conn, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n")
	br := bufio.NewReader(conn)
	if resp, err := http.ReadResponse(br, &http.Request{Method: "HEAD"}); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	begun := time.Now()
	if err := errors.Join(s.Drain(ctx), s.Finish(ctx)); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	// The one that asks nothing more is told that this is the end.
	if n, err := br.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read %d, %v", n, err)
	}
}

// Over TLS, too, what is cut off does not pass for a whole answer where the
// connection's end is the answer's.
func TestCutAnswersBreakOverTLS(t *testing.T) {
	for _, way := range []string{"", "http://h"} { // the second is net/http's
		begun := make(chan bool)
		s, config := secure(t, routes{serve: func(ctx context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
			_ = w.Head(200, nil, -1)
			_, _ = w.Write([]byte("abc"))
			_ = w.Flush()
			close(begun)
			<-ctx.Done()
			return httpmsg.ErrAborted
		}})
		conn := s.dialTLS(t, config)
		fmt.Fprintf(conn, "GET %s/ HTTP/1.0\r\n\r\n", way)
		<-begun
		br := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = s.Drain(ctx)
		if err := s.Finish(ctx); err == nil {
			t.Error("nothing was cut off")
		}
		if rest, err := io.ReadAll(br); err == nil {
			t.Errorf("target %q: %q passed for the rest of the answer", way+"/", rest)
		}
	}
}

// A side of a tunnel that ends its half goes on listening.
func TestHalfCloseOverTLS(t *testing.T) {
	for _, way := range []string{"", "http://h"} {
		s, config := secure(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
			conn, err := w.Upgrade(httpmsg.Header{{Name: "Upgrade", Value: "echo"}})
			if err != nil {
				return err
			}
			defer conn.Close()
			all, err := io.ReadAll(conn)
			if err != nil {
				return httpmsg.ErrAborted
			}
			if _, err := conn.Write(all); err != nil {
				return httpmsg.ErrAborted
			}
			return conn.(interface{ CloseWrite() error }).CloseWrite()
		}})
		conn := s.dialTLS(t, config)
		fmt.Fprintf(conn, "GET %s/ HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly", way)
		if _, err := io.WriteString(conn, " late"); err != nil {
			t.Fatal(err)
		}
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasSuffix(string(got), "\r\n\r\nearly late") {
			t.Errorf("%q: %q, %v", way, got, err)
		}
	}
}

// drainOf begins an orderly end and returns its result.
func drainOf(t *testing.T, s *started) chan error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- errors.Join(s.Drain(ctx), s.Finish(ctx))
	}()
	return ended
}

// At the end clients of HTTP/2 are told, streams under way end, new ones are
// not begun.
func TestHTTP2Drain(t *testing.T) {
	begun, release := make(chan bool), make(chan bool)
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		_ = w.Head(200, nil, -1)
		_, _ = io.WriteString(w, "first ")
		_ = w.Flush()
		close(begun)
		<-release
		_, err := io.WriteString(w, "last")
		return err
	}})
	busy, idle := s.raw(t), s.raw(t)
	for _, c := range []*rawHTTP2{busy, idle} { // both are known to net/http now
		if err := c.WritePing(false, [8]byte{1}); err != nil {
			t.Fatal(err)
		}
		awaitFrame(t, c, func(f http2.Frame) bool { p, ok := f.(*http2.PingFrame); return ok && p.IsAck() })
	}
	if err := busy.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: busy.fields(get()...), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	<-begun
	ended := drainOf(t, s)
	awaitFrame(t, idle, isGoAway)
	if _, err := idle.ReadFrame(); err == nil {
		t.Error("the idle connection goes on")
	}
	awaitFrame(t, busy, isGoAway)
	if conn, err := net.Dial("tcp", s.addr); err == nil {
		conn.Close()
		t.Error("there is a listener still")
	}
	close(release)
	var got []byte
	awaitFrame(t, busy, func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		if ok {
			got = append(got, d.Data()...)
		}
		return ok && d.StreamEnded()
	})
	if !strings.HasSuffix(string(got), "last") {
		t.Errorf("the stream ended with %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// They are told also when nothing is under way.
func TestHTTP2DrainOfIdleConnections(t *testing.T) {
	s := start(t, routes{serve: hello})
	c := s.raw(t)
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(get()...), EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	awaitFrame(t, c, func(f http2.Frame) bool { d, ok := f.(*http2.DataFrame); return ok && d.StreamEnded() })
	begun := time.Now()
	ended := drainOf(t, s)
	awaitFrame(t, c, isGoAway)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A stream that does not end is cut off at the deadline.
func TestHTTP2CutAtTheDeadline(t *testing.T) {
	for _, way := range http2Ways {
		begun := make(chan bool)
		s, client, base := through(t, way, routes{serve: func(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
			_ = w.Head(200, nil, -1)
			_, _ = io.WriteString(w, "first")
			_ = w.Flush()
			close(begun)
			_, _ = io.Copy(io.Discard, r.Body)
			<-ctx.Done()
			return httpmsg.ErrAborted
		}})
		body, send := io.Pipe()
		defer send.Close()
		resp, err := client.Post(base+"/", "application/grpc", body)
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_ = s.Drain(ctx)
		if err := s.Finish(ctx); err == nil || err.Error() != "requests cut off at the deadline: 1" {
			t.Errorf("%s: %v", way, err)
		}
		cancel()
		if got, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: %q passed for the whole answer", way, got)
		}
		resp.Body.Close()
	}
}

func isGoAway(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }

// awaitFrame reads frames until one is wanted.
func awaitFrame(t *testing.T, c *rawHTTP2, wanted func(http2.Frame) bool) {
	t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if wanted(f) {
			return
		}
	}
}
