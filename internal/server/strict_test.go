package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/tunnel"
)

// strictOn reads text as net/http would be given it.
func strictOn(r io.Reader) (*strict, *error) {
	var refused error
	return newStrict(&tunnel.Conn{Conn: readConn{r: r}}, func(err error) { refused = err }), &refused
}

type readConn struct {
	net.Conn
	r io.Reader
}

func (c readConn) Read(p []byte) (int, error)      { return c.r.Read(p) }
func (c readConn) SetReadDeadline(time.Time) error { return nil }

func TestStrictPassesHeadsAndFramesBodies(t *testing.T) {
	const in = "\r\nGET /a%zz HTTP/1.1\r\nhost: h\r\nX-B: 1\r\nx-b: 2\r\n\r\n" +
		"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" +
		"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nde\r\n01\r\nf\r\n0\r\nt: 1\r\nT: 2\r\n\r\n" +
		"GET /last HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, r := range map[string]io.Reader{"at once": strings.NewReader(in), "byte by byte": iotest.OneByteReader(strings.NewReader(in))} {
		s, refused := strictOn(r)
		br := bufio.NewReader(s)
		for _, want := range []struct{ method, shown, target, header, body, trailer string }{
			{"GET", "/", "/a%zz", "X-B1x-b2", "", ""},
			{"POST", "/p", "/p", "Content-Length3", "abc", ""},
			{"POST", "/c", "/c", "Transfer-Encodingchunked", "def", "t1T2"},
			{"GET", "/last", "/last", "", "", ""},
		} {
			r, err := http.ReadRequest(br)
			if err != nil {
				t.Fatalf("%s: %s: %v", name, want.target, err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || string(body) != want.body || r.Method != want.method || r.RequestURI != want.shown {
				t.Errorf("%s: %s %s %q, %v", name, r.Method, r.RequestURI, body, err)
			}
			one := s.take(r.Method, r.RequestURI)
			if one == nil {
				t.Fatalf("%s: %s was not kept", name, want.target)
			}
			header, trailer := "", ""
			for _, f := range one.Header {
				header += f.Name + f.Value
			}
			for _, f := range s.trailerOf(one) {
				trailer += f.Name + f.Value
			}
			if one.Target != want.target || header != want.header || trailer != want.trailer {
				t.Errorf("%s: kept %s, %q, trailer %q", name, one.Target, header, trailer)
			}
		}
		if _, err := http.ReadRequest(br); !errors.Is(err, io.EOF) || *refused != nil {
			t.Errorf("%s: at the end %v, refused %v", name, err, *refused)
		}
	}
}

// Of empty lines in front of a request net/http sees as many as the fast path
// takes, whether it looks ahead meanwhile or not.
func TestStrictPassesOverFewEmptyLines(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	for lines, good := range map[int]bool{0: true, 1: true, 2: true, 3: false, 5: false, 50: false} {
		for _, looks := range []bool{true, false} {
			s, refused := strictOn(strings.NewReader(head + strings.Repeat("\r\n", lines) + head))
			got := make([]byte, len(head))
			if _, err := io.ReadFull(s, got); err != nil {
				t.Fatal(err)
			}
			n := 0
			if looks {
				if _, err := s.Read(got[:1]); err != nil {
					t.Errorf("%d lines: looking ahead gave %v", lines, err)
				}
				n = 1
			}
			_, err := io.ReadFull(s, got[n:])
			if good && (err != nil || string(got) != head || *refused != nil) || !good && (err == nil || *refused == nil) {
				t.Errorf("%d lines, looks ahead: %v: %q, %v, refused with %v", lines, looks, got, err, *refused)
			}
		}
	}
}

// A tunnel gets every byte that the client sent after its request, whether
// net/http has looked at the first of them or not.
func TestStrictGivesATunnelEverything(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
	for _, after := range []string{"\r\nhello", "GET / HTTP/1.1\r\n\r\n", "\x00\x01", ""} {
		for _, looks := range []bool{true, false} {
			s, _ := strictOn(strings.NewReader(head + after))
			got := make([]byte, len(head))
			if _, err := io.ReadFull(s, got); err != nil || string(got) != head {
				t.Fatalf("%q, %v", got, err)
			}
			var first [1]byte
			n := 0
			if looks {
				n, _ = s.Read(first[:]) // the end comes again
			}
			s.raw()
			if left := s.left(); left != len(after)-n {
				t.Errorf("%q: %d bytes are left", after, left)
			}
			rest, err := io.ReadAll(s)
			if all := string(first[:n]) + string(rest); all != after || err != nil {
				t.Errorf("%q became %q, %v", after, all, err)
			}
		}
	}
}

// A head that does not pass is refused once, and net/http hears of a client
// that takes too long.
func TestStrictRefuses(t *testing.T) {
	s, refused := strictOn(strings.NewReader("GET / HTTP/1.1\nHost: h\n\n"))
	for range 2 {
		if n, err := s.Read(make([]byte, 100)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
	}
	if *refused == nil {
		t.Error("it was not refused")
	}
	s, refused = strictOn(strings.NewReader("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n+1\r\ny\r\n0\r\n\r\n"))
	r, err := http.ReadRequest(bufio.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.Body); err == nil || string(b) != "x" || s.problem() == nil || *refused != nil {
		t.Errorf("read %q, %v; %v, refused %v", b, err, s.problem(), *refused)
	}
}

// Whatever net/http reads of what passes, http1 reads of the connection itself:
// as many requests, with the same bodies.
func FuzzStrict(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: 1\r\n\r\n"), 1)
	f.Add([]byte("POST /%zz HTTP/1.0\r\nContent-Length: 2\r\n\r\nabGET / HTTP/1.1\r\nHost: h\r\n\r\n"), 7)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		if cut = min(max(cut, 0), len(text)); len(text) > 64<<10 {
			return
		}
		s, _ := strictOn(io.MultiReader(bytes.NewReader(text[:cut]), bytes.NewReader(text[cut:])))
		br := bufio.NewReader(s)
		in := http1.NewReader(bytes.NewReader(text))
		for {
			head, err := in.ReadHead()
			var want http1.Request
			if err == nil {
				err = http1.ParseRequest(head, &want)
			}
			if err != nil {
				if r, err := http.ReadRequest(br); err == nil {
					t.Fatalf("net/http reads %s %s where nothing passes", r.Method, r.RequestURI)
				}
				return
			}
			r, err := http.ReadRequest(br)
			if err != nil {
				return // net/http is stricter here and there
			}
			if one := s.take(r.Method, r.RequestURI); one == nil || one.Target != want.Target || r.Method != want.Method {
				t.Fatalf("net/http reads %s %s, not %s %s", r.Method, r.RequestURI, want.Method, want.Target)
			}
			var body http1.Body
			body.Reset(in, want.Length)
			b, berr := io.ReadAll(&body)
			got, gerr := io.ReadAll(r.Body)
			if !bytes.Equal(b, got) || (berr == nil) != (gerr == nil) {
				t.Fatalf("the body is %q, %v, not %q, %v", got, gerr, b, berr)
			}
			if berr != nil {
				return
			}
		}
	})
}
