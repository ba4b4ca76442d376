package http1

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/micro/sidecar/internal/httpmsg"
)

// canonical lists fields as net/http holds them, without those that it moves
// elsewhere.
func canonical(h httpmsg.Header) []string {
	var out []string
	for _, f := range h {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if name != "Transfer-Encoding" && name != "Trailer" && name != "Host" {
			out = append(out, name+": "+f.Value)
		}
	}
	slices.Sort(out)
	return out
}

func theirs(h http.Header) []string {
	var out []string
	for name, values := range h {
		for _, v := range values {
			if name != "Trailer" && name != "Host" {
				out = append(out, name+": "+v)
			}
		}
	}
	slices.Sort(out)
	return out
}

// FuzzRequest: what we take, net/http takes as well, and reads the same into
// it; what follows the message is the same, too.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
		"POST /a%2Fb?x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\nGET",
		"GET / HTTP/1.0\r\nConnection: close, x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		head, err := r.ReadHead()
		if err != nil {
			return
		}
		var ours Request
		if ParseRequest(head, &ours) != nil {
			return
		}
		if _, err := url.ParseRequestURI(ours.Target); err != nil || ours.Method == "CONNECT" {
			return // net/http refuses targets that net/url does
		}
		buffered := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(data, "\r\n")))
		req, err := http.ReadRequest(buffered)
		if err != nil {
			t.Fatalf("net/http refuses what we take: %v\n%q", err, head)
		}
		if req.Method != ours.Method || req.RequestURI != ours.Target || req.ContentLength != ours.Length {
			t.Errorf("%q: we read %s %s %d, net/http %s %s %d", head, ours.Method, ours.Target, ours.Length, req.Method, req.RequestURI, req.ContentLength)
		}
		if a, b := canonical(ours.Header), theirs(req.Header); !slices.Equal(a, b) && ours.Length != Chunked {
			t.Errorf("%q: we read %q, net/http %q", head, a, b)
		}
		sameBody(t, r, ours.Length, req.Body, buffered)
	})
}

// FuzzResponse is FuzzRequest for answers.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP",
		"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nall the rest", "HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxyz",
	} {
		f.Add([]byte(s), "GET")
		f.Add([]byte(s), "HEAD")
	}
	f.Fuzz(func(t *testing.T, data []byte, method string) {
		r := NewReader(bytes.NewReader(data))
		head, err := r.ReadHead()
		if err != nil {
			return
		}
		var ours Response
		if ParseResponse(head, method, &ours) != nil || method == "CONNECT" || ours.Status == 101 {
			return
		}
		buffered := bufio.NewReader(bytes.NewReader(bytes.TrimLeft(data, "\r\n")))
		resp, err := http.ReadResponse(buffered, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses what we take: %v\n%q", err, head)
		}
		if resp.StatusCode != ours.Status {
			t.Errorf("%q: we read %d, net/http %d", head, ours.Status, resp.StatusCode)
		}
		sameBody(t, r, ours.Length, resp.Body, buffered)
	})
}

// sameBody compares bodies and what is behind them. We may refuse more.
func sameBody(t *testing.T, r *Reader, length int64, theirs io.Reader, behind io.Reader) {
	t.Helper()
	var b Body
	b.Reset(r, length)
	ours, err := io.ReadAll(&b)
	other, otherErr := io.ReadAll(theirs)
	if err != nil {
		if !strings.HasPrefix(string(other), string(ours)) {
			t.Errorf("before our error %v we read %q, net/http %q", err, ours, other)
		}
		return
	}
	if otherErr != nil || !bytes.Equal(ours, other) {
		t.Fatalf("we read %q, net/http %q and %v", ours, other, otherErr)
	}
	rest, _ := io.ReadAll(r)
	otherRest, _ := io.ReadAll(behind)
	if !bytes.Equal(rest, otherRest) {
		t.Errorf("behind the body we see %q, net/http %q", rest, otherRest)
	}
}

// FuzzRoundTrip: what we write is what we read.
func FuzzRoundTrip(f *testing.F) {
	f.Add("GET", "/x?y", "h:1", "A", "b", []byte("body"), true)
	f.Fuzz(func(t *testing.T, method, target, host, name, value string, content []byte, chunked bool) {
		if !IsToken(method) || !IsTarget(target) || !IsHost(host) || !IsToken(name) || !IsValue(value) || len(name)+len(value) > 1000 {
			return
		}
		length := int64(len(content))
		if chunked {
			length = Chunked
		}
		var probe framing
		if probe.note(httpmsg.Field{Name: name, Value: value}) != nil || probe.lengths > 0 || probe.chunked || fold(name, "host") {
			return
		}
		b := AppendRequestLine(nil, method, target, host)
		b = AppendField(b, name, value)
		b = append(AppendLength(b, length), "\r\n"...)
		if chunked {
			if len(content) > 0 {
				b = append(append(AppendChunkSize(b, len(content)), content...), "\r\n"...)
			}
			b = AppendLastChunk(b, httpmsg.Header{{Name: "T", Value: "v"}})
		} else {
			b = append(b, content...)
		}
		r := NewReader(bytes.NewReader(b))
		head, err := r.ReadHead()
		if err != nil {
			t.Fatal(err)
		}
		var req Request
		if err := ParseRequest(head, &req); err != nil {
			t.Fatalf("%v\n%q", err, head)
		}
		var body Body
		body.Reset(r, req.Length)
		got, err := io.ReadAll(&body)
		if err != nil || !bytes.Equal(got, content) || req.Method != method || req.Target != target || req.Host != host ||
			req.Header[0] != (httpmsg.Field{Name: name, Value: trim(value)}) {
			t.Errorf("wrote %q, read %+v %q %v", b, req, got, err)
		}
		if chunked && fmt.Sprint(body.Trailer()) != "[{T v}]" {
			t.Errorf("trailer %v", body.Trailer())
		}
	})
}
