package http1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRequestIsKeptAsItCame(t *testing.T) {
	const text = "PURGE /a%2Fb//c/./../d?x=%00&y; HTTP/1.1\r\nhOsT: example:81\r\nX-b: 1\r\nx-B:\t2 \r\nEmpty:\r\nCookie: \xff\xfe\r\n\r\n"
	var r Request
	if err := ParseRequest(text, &r); err != nil {
		t.Fatal(err)
	}
	if r.Method != "PURGE" || r.Target != "/a%2Fb//c/./../d?x=%00&y;" || r.Host != "example:81" || r.Minor != 1 {
		t.Errorf("got %+v", r)
	}
	want := httpmsg.Header{{Name: "X-b", Value: "1"}, {Name: "x-B", Value: "2"}, {Name: "Empty"}, {Name: "Cookie", Value: "\xff\xfe"}}
	if fmt.Sprint(r.Header) != fmt.Sprint(want) {
		t.Errorf("got %q", r.Header)
	}
}

func TestRequestFraming(t *testing.T) {
	for _, c := range []struct {
		text     string
		length   int64
		close    bool
		upgrade  string
		expected bool // 100-continue
	}{
		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", 0, false, "", false},
		{"GET / HTTP/1.1\r\nHost:\r\n\r\n", 0, false, "", false},
		{"GET / HTTP/1.0\r\n\r\n", 0, true, "", false},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0012\r\n\r\n", 12, false, "", false},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n", Chunked, false, "", false},
		{"GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close\r\n\r\n", 0, true, "", false},
		{"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 0, false, "websocket", false},
		{"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n", 0, false, "", false},
		{"PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n", 1, false, "", true},
	} {
		var r Request
		if err := ParseRequest(c.text, &r); err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if r.Length != c.length || r.Close != c.close || r.Upgrade != c.upgrade || r.Continue != c.expected {
			t.Errorf("%q: got %+v", c.text, r)
		}
	}
}

// What two programs could read in two ways is refused (RFC 9112 sections 2, 5,
// 6 and 11).
func TestRequestsThatAreRefused(t *testing.T) {
	for _, text := range []string{
		"",
		"\r\n",
		"GET /\r\nHost: h\r\n\r\n",
		"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
		"GET / http/1.1\r\nHost: h\r\n\r\n",
		"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
		"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET /a\x00b HTTP/1.1\r\nHost: h\r\n\r\n",
		"G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
		" GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"GET / HTTP/1.1\nHost: h\n\n",
		"GET / HTTP/1.1\r\nHost: h\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n X: y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n folded\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\n\r\nrest",
		"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("a: b\r\n", MaxFields) + "\r\n",
	} {
		var r Request
		if err := ParseRequest(text, &r); err == nil {
			t.Errorf("%.80q was taken: %+v", text, r)
		}
	}
}

func TestResponseFraming(t *testing.T) {
	for _, c := range []struct {
		text, method string
		status       int
		length       int64
		close        bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", 200, 5, false},
		{"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\n", "GET", 200, 5, false},
		{"HTTP/1.1 200 \r\n\r\n", "GET", 200, UntilClose, true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", 200, 0, false},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "GET", 200, Chunked, false},
		{"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", 204, 0, false},
		{"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", 304, 0, false},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", "GET", 200, 5, true},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", "GET", 200, 5, true},
		{"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", "GET", 200, 5, false},
		{"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "GET", 103, 0, false},
	} {
		var r Response
		if err := ParseResponse(c.text, c.method, &r); err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if r.Status != c.status || r.Length != c.length || r.Close != c.close {
			t.Errorf("%q: got %+v", c.text, r)
		}
	}
	for _, text := range []string{
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 +20 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/3 200 OK\r\n\r\n", "ICY 200 OK\r\n\r\n", "HTTP/1.1 200 O\x00K\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		var r Response
		if err := ParseResponse(text, "GET", &r); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestReadHead(t *testing.T) {
	const one, two = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: h\r\n\r\n"
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "EOF with data": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			r := NewReader(wrap(strings.NewReader("\r\n" + one + two)))
			for _, want := range []string{one, two} {
				if got, err := r.ReadHead(); err != nil || got != want {
					t.Errorf("got %q, %v", got, err)
				}
			}
			if _, err := r.ReadHead(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		})
	}
	large := "GET / HTTP/1.1\r\nX: " + strings.Repeat("y", 20<<10) + "\r\n\r\n"
	if got, err := NewReader(strings.NewReader(large)).ReadHead(); err != nil || got != large {
		t.Errorf("a large head: %d bytes, %v", len(got), err)
	}
	for text, want := range map[string]error{
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("y", MaxHead): ErrHeadTooLarge,
		"GET / HTTP/1.1\r\nHos":                                io.ErrUnexpectedEOF,
	} {
		if _, err := NewReader(strings.NewReader(text)).ReadHead(); !errors.Is(err, want) {
			t.Errorf("%.40q: %v, want %v", text, err, want)
		}
	}
	var nonsense *Error
	// It must not wait for more.
	endless := io.MultiReader(strings.NewReader("GET / HTTP/1.1\n\n"), iotest.ErrReader(errors.New("asked for more")))
	if _, err := NewReader(endless).ReadHead(); !errors.As(err, &nonsense) {
		t.Errorf("bare line feeds: %v", err)
	}
}

// body reads a body of that length from text.
func body(text string, length int64, wrap func(io.Reader) io.Reader) (string, *Reader, *Body, error) {
	r := NewReader(wrap(strings.NewReader(text)))
	var b Body
	b.Reset(r, length)
	got, err := io.ReadAll(&b)
	return string(got), r, &b, err
}

func TestBodies(t *testing.T) {
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "halves": iotest.HalfReader,
	} {
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				text   string
				length int64
				want   string
				rest   string
				err    error
			}{
				{"hello, next", 5, "hello", ", next", nil},
				{"next", 0, "", "next", nil},
				{"hel", 5, "hel", "", io.ErrUnexpectedEOF},
				{"everything", UntilClose, "everything", "", nil},
				{"5\r\nhello\r\n0\r\n\r\nnext", Chunked, "hello", "next", nil},
				{"5;a=b\r\nhello\r\n006 ; x\r\n world\r\n000\r\n\r\nnext", Chunked, "hello world", "next", nil},
				{"A\r\n0123456789\r\n0\r\n\r\n", Chunked, "0123456789", "", nil},
				{"0\r\n\r\nnext", Chunked, "", "next", nil},
				{"5\r\nhel", Chunked, "hel", "", io.ErrUnexpectedEOF},
				{"5\r\nhello\r\n", Chunked, "hello", "", io.ErrUnexpectedEOF},
				{"5\r\nhello\r\n0\r\n", Chunked, "hello", "", io.ErrUnexpectedEOF},
			} {
				got, r, b, err := body(c.text, c.length, wrap)
				rest, _ := io.ReadAll(r)
				if got != c.want || !errors.Is(err, c.err) || c.err == nil && (string(rest) != c.rest || !b.Ended()) {
					t.Errorf("%q: got %q, %v, then %q", c.text, got, err, rest)
				}
			}
			for _, text := range []string{
				"\r\n\r\n", "x\r\n", "-1\r\n\r\n", "0x5\r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n", "5 x\r\nhello\r\n0\r\n\r\n",
				"5\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello!\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "10000000000000000\r\n",
				"5;a=\x00\r\nhello\r\n0\r\n\r\n", "5;" + strings.Repeat("a", 300) + "\r\nhello\r\n0\r\n\r\n",
				"0\r\nContent-Length: 5\r\n\r\n", "0\r\nX\r\n\r\n", "0\r\n folded\r\n\r\n", "0\r\nX: " + strings.Repeat("y", maxTrailer) + "\r\n\r\n",
			} {
				var nonsense *Error
				if got, _, _, err := body(text, Chunked, wrap); !errors.As(err, &nonsense) {
					t.Errorf("%.60q: got %q, %v", text, got, err)
				}
			}
			_, _, b, err := body("1\r\nx\r\n0\r\nA: 1\r\na: 2\r\n\r\n", Chunked, wrap)
			if err != nil || fmt.Sprint(b.Trailer()) != "[{A 1} {a 2}]" {
				t.Errorf("trailer %v, %v", b.Trailer(), err)
			}
		})
	}
}

// The end of a small body is told with its data, so that head, body and end can
// leave in one piece.
func TestTheEndComesWithTheData(t *testing.T) {
	for text, length := range map[string]int64{"hello": 5, "5\r\nhello\r\n0\r\n\r\n": Chunked} {
		r := NewReader(strings.NewReader(text))
		if err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		var b Body
		b.Reset(r, length)
		if n, err := b.Read(make([]byte, 64)); n != 5 || !errors.Is(err, io.EOF) {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func BenchmarkParseRequest(b *testing.B) {
	text := "GET /greeter/hello?name=John HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n"
	var r Request
	b.ReportAllocs()
	for b.Loop() {
		if err := ParseRequest(text, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBodyReady(t *testing.T) {
	for _, tt := range []struct {
		here   string
		length int64
		ready  bool
	}{
		{"", 0, true}, {"", 1, false}, {"x", 2, true}, {"", UntilClose, false}, {"x", UntilClose, true},
		{"", Chunked, false}, {"3", Chunked, false}, {"3;a=b\r\n", Chunked, false}, {"3\r\na", Chunked, true}, {"0\r\n\r\n", Chunked, true},
	} {
		r := NewReader(strings.NewReader(""))
		r.Put([]byte(tt.here))
		var b Body
		b.Reset(r, tt.length)
		if got := b.Ready(); got != tt.ready {
			t.Errorf("%q of a body of length %d: %v", tt.here, tt.length, got)
		}
	}
}
