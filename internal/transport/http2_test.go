package transport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/httpmsg"
)

// h2server is net/http's server, for HTTP/2 in the clear alone.
type h2server struct {
	addr string
	srv  *http.Server
	open atomic.Int64 // connections
	made atomic.Int64
}

func startH2(t testing.TB, h http.HandlerFunc, change ...func(*http.Server)) *h2server {
	t.Helper()
	s := &h2server{srv: &http.Server{Handler: h, Protocols: new(http.Protocols)}}
	s.srv.Protocols.SetUnencryptedHTTP2(true)
	s.srv.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.made.Add(1)
			s.open.Add(1)
		case http.StateClosed:
			s.open.Add(-1)
		}
	}
	for _, f := range change {
		f(s.srv)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.srv.Close()
		<-done
	})
	return s
}

func (s *h2server) peer() discovery.Peer { return discovery.Peer{Addr: s.addr, HTTP2: true} }

// exchange2 sends r and returns the answer with its body.
func exchange2(t *testing.T, c *Client, peer discovery.Peer, r *httpmsg.Request) (*httpmsg.Response, string) {
	t.Helper()
	res, err := c.Do(t.Context(), peer, r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func TestHTTP2SendsTheHeadAsItIs(t *testing.T) {
	var got *http.Request
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(context.Background())
		w.Header()["Date"] = nil
		w.Header().Set("X-Answer", "a")
		w.Header().Add("x-answer", "b")
		w.WriteHeader(299)
	})
	c := newClient(t, Options{})
	for _, target := range []string{
		"/", "/a%2Fb//c/./d?", "/?", "/x?", "/a/../b", "//x", "//x/y?z=%41", "//", "/a:b@c", "/x?a=b?c", "/%41?%zz",
	} {
		r := get(target)
		r.Method = "BREW"
		r.Header = httpmsg.Header{{Name: "X-Twice", Value: "a"}, {Name: "X-Twice", Value: "b"}, {Name: "Accept-Encoding", Value: "br"}}
		res, body := exchange2(t, c, s.peer(), r)
		if got.RequestURI != target || got.Host != "example.com" || got.Method != "BREW" {
			t.Errorf("%q arrived as %s %q for %s", target, got.Method, got.RequestURI, got.Host)
		}
		if want := "map[Accept-Encoding:[br] X-Twice:[a b]]"; fmt.Sprint(got.Header) != want {
			t.Errorf("header %v, want %s", got.Header, want)
		}
		if want := "[{x-answer a} {x-answer b} {content-length 0}]"; res.Status != 299 || body != "" || fmt.Sprint(res.Header) != want || res.Length != 0 {
			t.Errorf("answer %d %v, length %d", res.Status, res.Header, res.Length)
		}
	}
	if n := s.made.Load(); n != 1 {
		t.Errorf("%d connections were made, want one", n)
	}
}

func TestHTTP2Bodies(t *testing.T) {
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Got-Length", fmt.Sprint(r.ContentLength))
		w.Header().Set("Got-Trailer", fmt.Sprint(r.Trailer))
		w.Header().Set(http.TrailerPrefix+"X-Sum", "7")
		_, _ = w.Write(b)
	})
	c := newClient(t, Options{})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	for _, test := range []struct {
		body   io.Reader
		length int64
		size   int
	}{
		{bytes.NewReader(big[:5]), 5, 5}, {strings.NewReader("hello"), 5, 5}, {strings.NewReader("hello"), -1, 5},
		{bytes.NewReader(big), int64(len(big)), len(big)}, {onlyReader{bytes.NewReader(big)}, -1, len(big)}, {strings.NewReader(""), -1, 0},
	} {
		r := get("/")
		r.Method, r.Body, r.Length = "POST", test.body, test.length
		r.Header = httpmsg.Header{{Name: "Trailer", Value: "X-Check"}}
		if test.length < 0 {
			r.Trailer = func() httpmsg.Header {
				return httpmsg.Header{{Name: "X-Check", Value: "8"}, {Name: "Content-Length", Value: "9"}}
			}
		}
		res, body := exchange2(t, c, s.peer(), r)
		want := "map[X-Check:[]]"
		if test.length < 0 {
			want = "map[X-Check:[8]]"
		}
		if len(body) != test.size || res.Header.Get("Got-Length") != fmt.Sprint(test.length) || res.Header.Get("Got-Trailer") != want || res.Trailer().Get("X-Sum") != "7" {
			t.Errorf("%T %d: %d bytes, header %v, trailer %v", test.body, test.length, len(body), res.Header, res.Trailer())
		}
	}
}

// onlyReader hides what else a reader can do.
type onlyReader struct{ io.Reader }

// Messages pass each way while the other way is open.
func TestHTTP2FullDuplex(t *testing.T) {
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = w.Write(bytes.ToUpper(buf[:n]))
				_ = http.NewResponseController(w).Flush()
			}
			if err != nil {
				w.Header().Set(http.TrailerPrefix+"Status", "done")
				return
			}
		}
	})
	c := newClient(t, Options{})
	body, in := io.Pipe()
	r := get("/")
	r.Method, r.Body, r.Length = "POST", body, -1
	res, err := c.Do(t.Context(), s.peer(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Length != -1 {
		t.Errorf("length %d", res.Length)
	}
	buf := make([]byte, 100)
	for _, word := range []string{"one", "two", "three"} {
		_, _ = io.WriteString(in, word)
		n, err := res.Body.Read(buf)
		if err != nil || string(buf[:n]) != strings.ToUpper(word) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
	_ = in.Close()
	if n, err := res.Body.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end %q, %v", buf[:n], err)
	}
	if got := res.Trailer().Get("status"); got != "done" {
		t.Errorf("trailer %v", res.Trailer())
	}
}

// wait waits until a condition holds.
func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until " + what)
		}
	}
}
