package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/micro/sidecar/internal/httpmsg"
)

// http2Ways are the ways in of HTTP/2.
var http2Ways = []string{"HTTP/2", "HTTP/2 over TLS"}

// rawHTTP2 is a client that sends what it is told to.
type rawHTTP2 struct {
	*http2.Framer
	t     *testing.T
	conn  net.Conn
	block bytes.Buffer
	hpack *hpack.Encoder
}

// raw connects and reads the server's SETTINGS.
func (s *started) raw(t *testing.T) *rawHTTP2 {
	t.Helper()
	c := &rawHTTP2{t: t, conn: s.dial(t)}
	c.Framer = http2.NewFramer(c.conn, c.conn)
	c.Framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.hpack = hpack.NewEncoder(&c.block)
	if _, err := io.WriteString(c.conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// fields encodes "name: value" lines.
func (c *rawHTTP2) fields(lines ...string) []byte {
	c.block.Reset()
	for _, line := range lines {
		i := strings.Index(line[1:], ":") + 1
		if err := c.hpack.WriteField(hpack.HeaderField{Name: line[:i], Value: strings.TrimPrefix(line[i+1:], " ")}); err != nil {
			c.t.Fatal(err)
		}
	}
	return bytes.Clone(c.block.Bytes())
}

// get is the beginning of every request.
func get(more ...string) []string {
	return append([]string{":method: GET", ":scheme: http", ":path: /x", ":authority: h"}, more...)
}

// result waits for what becomes of a stream: a status or an error code.
func (c *rawHTTP2) result(stream uint32) string {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			return "GOAWAY " + f.ErrCode.String()
		}
	}
}

// Malformed requests are reset, and the connection goes on.
func TestMalformedRequests(t *testing.T) {
	s := start(t, routes{serve: hello})
	const refused, fine = "PROTOCOL_ERROR", "200"
	c := s.raw(t)
	stream := uint32(1)
	for _, test := range []struct {
		fields []string
		want   string
	}{
		{get(), fine},
		{get("connection: close"), refused},
		{get("connection: close"), refused}, // from the table now
		{get("proxy-connection: keep-alive"), refused},
		{get("keep-alive: 5"), refused},
		{get("transfer-encoding: chunked"), refused},
		{get("upgrade: h2c"), refused},
		{get("te: gzip"), refused},
		{get("te:"), refused},
		{get("te: trailers", "te: trailers"), refused},
		{get("te: trailers"), fine},
		{get("te: Trailers"), refused},
		{get("content-length: 0", "content-length: 0"), refused},
		{get("content-length: +0"), refused},
		{get("content-length: 0"), fine},
		{get("host: h"), fine},
		{get("host: other"), refused},
		{get("host: h", "host: h"), refused},
		{get("cookie: a=1", "cookie: b=2"), fine},
		{[]string{":method: GET", ":scheme: http", ":path: /x", "host: h"}, fine},
		{[]string{":method: GET /evil", ":scheme: http", ":path: /x", ":authority: h"}, refused},
		{[]string{":method: GET", ":scheme: http", ":path: /x HTTP/1.1", ":authority: h"}, refused},
		{[]string{":method: GET", ":scheme: http", ":path: /x", ":authority: h,i"}, refused},
		{[]string{":method: GET", ":scheme: http", ":path: /x", ":authority: u@h"}, refused},
		{get("x-last: 1"), fine},
	} {
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields(test.fields...), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if got := c.result(stream); got != test.want {
			t.Fatalf("%q: %s, want %s", test.fields, got, test.want)
		}
		stream += 2
	}
}

// A block of fields is looked at also when it comes in parts, padded, and with
// a priority.
func TestMalformedInParts(t *testing.T) {
	s := start(t, routes{serve: hello})
	c := s.raw(t)
	for i, bad := range []bool{false, true, false, true} {
		fields := get("x-a: 1", "x-b: 2")
		want := "200"
		if bad {
			fields, want = append(fields, "connection: x-a"), "PROTOCOL_ERROR"
		}
		block := c.fields(fields...)
		stream := uint32(2*i + 1)
		n := len(block) / 3
		err := errors.Join(
			c.WriteHeaders(http2.HeadersFrameParam{
				StreamID: stream, BlockFragment: block[:n], EndStream: true, PadLength: 7,
				Priority: http2.PriorityParam{Weight: 3},
			}),
			c.WriteContinuation(stream, false, block[n:2*n]),
			c.WriteContinuation(stream, false, nil),
			c.WriteContinuation(stream, true, block[2*n:]),
		)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.result(stream); got != want {
			t.Fatalf("stream %d: %s, want %s", stream, got, want)
		}
	}
}

func TestFieldsThatCannotBeRead(t *testing.T) {
	s := start(t, routes{serve: hello})
	c := s.raw(t)
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.result(1); got != "GOAWAY COMPRESSION_ERROR" {
		t.Errorf("got %s", got)
	}
}

// A block of fields that is much too large is not looked at to its end: a few
// bytes can stand for very much. The next one is.
func TestFieldsWithoutEnd(t *testing.T) {
	var block bytes.Buffer
	encode := func(name, value string) {
		if err := hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	encode("x", strings.Repeat("a", 4000))
	const again = "\xbe" // the newest field of the table
	block.WriteString(strings.Repeat(again, maxBlock/4000))
	encode(":path", "bad path") // nobody gets here
	var f fieldCheck
	f.init()
	if malformed, err := f.add(block.Bytes(), true); malformed || err != nil {
		t.Errorf("a block of %d bytes was read to its end: %v, %v", block.Len(), malformed, err)
	}
	block.Reset()
	encode(":path", "bad path")
	if malformed, err := f.add(block.Bytes(), true); !malformed || err != nil {
		t.Errorf("the block behind it was not looked at: %v, %v", malformed, err)
	}

	s := start(t, routes{})
	c := s.raw(t)
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append(c.fields(get("x: "+strings.Repeat("a", 4000))...), strings.Repeat(again, 40)...), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.result(1); got != "431" {
		t.Errorf("a request with %d bytes of fields got %s", 41*4000, got)
	}
}

// What the handlers see of a request, and the client of the answer.
func TestHTTP2Messages(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		text := fmt.Sprintf("%s %s host=%s cookie=%s header=%v", r.Method, r.Target, r.Host, r.Header.Get("Cookie"), r.Header.Has("Host"))
		_ = w.Head(200, httpmsg.Header{{Name: "X-Odd-case", Value: text}, {Name: "x-two", Value: "1"}, {Name: "X-Two", Value: "2"}}, 0)
		return nil
	}})
	c := s.raw(t)
	for i, test := range []struct {
		fields []string
		want   string
	}{
		{
			[]string{":method: BREW", ":scheme: http", ":path: //a%2Fb/../%00?", ":authority: Example:80", "host: example:80", "cookie: a=1", "cookie: b=2"},
			"BREW //a%2Fb/../%00? host=Example:80 cookie=a=1; b=2 header=false",
		},
		{[]string{":method: GET", ":scheme: http", ":path: /", "host: only"}, "GET / host=only cookie= header=false"},
	} {
		stream := uint32(2*i + 1)
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields(test.fields...), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for got == nil {
			f, err := c.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if f, ok := f.(*http2.MetaHeadersFrame); ok {
				for _, field := range f.Fields {
					got = append(got, field.Name+": "+field.Value)
				}
				if !f.StreamEnded() {
					t.Error("an answer without a body has more than its head")
				}
			}
		}
		// Nothing is added, no date and no length.
		if want := ":status: 200|x-odd-case: " + test.want + "|x-two: 2|x-two: 1"; strings.Join(got, "|") != want {
			t.Errorf("got  %q\nwant %q", strings.Join(got, "|"), want)
		}
	}
}

// Both directions stream at the same time; hints and trailers arrive.
func TestHTTP2FullDuplex(t *testing.T) {
	for _, way := range http2Ways {
		t.Run(way, func(t *testing.T) {
			_, client, base := through(t, way, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
				_ = w.Informational(103, httpmsg.Header{{Name: "Link", Value: "</a>"}})
				_ = w.Head(200, nil, -1)
				_ = w.Flush()
				buf := make([]byte, 100)
				for {
					n, err := r.Body.Read(buf)
					if n > 0 {
						_, _ = w.Write(bytes.ToUpper(buf[:n]))
						_ = w.Flush()
					}
					if errors.Is(err, io.EOF) {
						return w.Trailer(httpmsg.Header{{Name: "Grpc-Status", Value: "0"}})
					}
					if err != nil {
						return httpmsg.ErrAborted
					}
				}
			}})
			body, send := io.Pipe()
			hints := make(chan string, 1)
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
					hints <- fmt.Sprint(code, h.Get("Link"))
					return nil
				},
			})
			req, _ := http.NewRequestWithContext(ctx, "POST", base+"/", body)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := <-hints; got != "103</a>" {
				t.Errorf("hint %q", got)
			}
			for _, word := range []string{"one", "two", "three"} {
				if _, err := io.WriteString(send, word); err != nil {
					t.Fatal(err)
				}
				got := make([]byte, len(word))
				if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != strings.ToUpper(word) {
					t.Fatalf("%q, %v", got, err)
				}
			}
			send.Close()
			rest, err := io.ReadAll(resp.Body)
			if err != nil || len(rest) > 0 || resp.Trailer.Get("Grpc-Status") != "0" {
				t.Errorf("rest %q, %v, trailer %v", rest, err, resp.Trailer)
			}
		})
	}
}

// An answer that comes before the request is read ends the stream, not the
// connection: the others go on.
func TestHTTP2EarlyAnswer(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, _ *httpmsg.Request, w httpmsg.ResponseWriter) error {
		return w.Head(413, nil, 0)
	}})
	c := s.raw(t)
	shortest := drainTime
	for stream := uint32(1); stream < 7; stream += 2 {
		block := c.fields(":method: POST", ":scheme: http", ":path: /", ":authority: h")
		begun := time.Now()
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if got := c.result(stream); got != "413" {
			t.Fatalf("answer %s", got)
		}
		if got := c.result(stream); got != "NO_ERROR" {
			t.Fatalf("after the answer: %s", got)
		}
		shortest = min(shortest, time.Since(begun))
	}
	if shortest > drainTime/2 {
		t.Errorf("each took %v or more", shortest)
	}
}

// A body that nobody reads does not hold up the other streams.
func TestHTTP2UnreadBodyHoldsNobodyUp(t *testing.T) {
	release := make(chan bool)
	_, client, base := through(t, "HTTP/2", routes{serve: func(ctx context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		if r.Target == "/stuck" {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return httpmsg.ErrAborted
		}
		return w.Head(200, httpmsg.Header{{Name: "N", Value: fmt.Sprint(n)}}, 0)
	}})
	const size = 3 << 20
	post := func(path string) error {
		resp, err := client.Post(base+path, "", bytes.NewReader(make([]byte, size)))
		if err != nil {
			return err
		}
		resp.Body.Close()
		if got := resp.Header.Get("N"); got != fmt.Sprint(size) {
			return fmt.Errorf("%s: %s bytes arrived", path, got)
		}
		return nil
	}
	stuck := make(chan error)
	for range 3 {
		go func() { stuck <- post("/stuck") }()
	}
	for range 5 {
		if err := post("/fine"); err != nil {
			t.Error(err)
		}
	}
	close(release)
	for range 3 {
		if err := <-stuck; err != nil {
			t.Error(err)
		}
	}
}

func TestHTTP2RefusesConnect(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		return w.Head(501, nil, 0)
	}})
	c := s.raw(t)
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.fields(":method: CONNECT", ":authority: db:5432"), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.result(1); got != "501" {
		t.Errorf("CONNECT: %s", got)
	}
	// RFC 8441, which was not offered.
	if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: c.fields(":method: CONNECT", ":protocol: websocket", ":scheme: http", ":path: /", ":authority: h"), EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	if got := c.result(3); got != "PROTOCOL_ERROR" {
		t.Errorf("extended CONNECT: %s", got)
	}
}

// A panic is answered also when nothing else can be, and ends its stream alone.
func TestHTTP2Panic(t *testing.T) {
	s := start(t, routes{serve: func(_ context.Context, r *httpmsg.Request, w httpmsg.ResponseWriter) error {
		if r.Target == "/late" {
			_ = w.Head(200, nil, 10)
			_ = w.Flush()
		}
		panic("at " + r.Target)
	}})
	c := s.raw(t)
	for i, test := range []struct{ path, first, second string }{{"/early", "500", ""}, {"/late", "200", "INTERNAL_ERROR"}, {"/early", "500", ""}} {
		stream := uint32(2*i + 1)
		if err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields(":method: GET", ":scheme: http", ":path: "+test.path, ":authority: h"), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if got := c.result(stream); got != test.first {
			t.Errorf("%s: %s", test.path, got)
		}
		if test.second != "" {
			if got := c.result(stream); got != test.second {
				t.Errorf("%s: then %s", test.path, got)
			}
		}
	}
}
