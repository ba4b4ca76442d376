package proxy

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse makes a header of lines.
func parse(text string) httpmsg.Header {
	var h httpmsg.Header
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			h.Add(name, value)
		}
	}
	return h
}

func format(h httpmsg.Header) string {
	var b strings.Builder
	for _, f := range h {
		b.WriteString(f.Name + ":" + f.Value + "\n")
	}
	return b.String()
}

func TestEndToEnd(t *testing.T) {
	for _, tt := range []struct{ in, out string }{
		{"", ""},
		{"b:1\nA:2\nb:\n", "b:1\nA:2\nb:\n"},
		{"connection:close\nA:1\n", "A:1\n"},
		{"Connection:a, ,B\nCONNECTION:c\nA:1\nb:2\nC:3\nD:4\nA:5\n", "D:4\n"},
		{"Keep-Alive:x\nTE:trailers\nTrailer:X\nTransfer-Encoding:chunked\nProxy-Connection:y\nProxy-Authorization:z\n", "Trailer:X\nProxy-Authorization:z\n"},
		{"micro-token:secret\nMicro-Tokens:no\n", "Micro-Tokens:no\n"},
		{"Content-Length:0\n", "Content-Length:0\n"},
	} {
		if got := format(endToEnd(nil, parse(tt.in), token)); got != tt.out {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.out)
		}
	}
}

func TestOutgoing(t *testing.T) {
	for _, tt := range []struct {
		name, in, remote, host string
		tls                    bool
		out                    string
	}{
		{"plain", "A:1\n", "192.0.2.7:5", "h", false, "A:1\nX-Forwarded-For:192.0.2.7\nX-Forwarded-Host:h\nX-Forwarded-Proto:http\n"},
		{"TLS, IPv6 with a zone", "", "[fe80::1%eth0]:5", "h", true, "X-Forwarded-For:fe80::1\nX-Forwarded-Host:h\nX-Forwarded-Proto:https\n"},
		{"HTTP/1.0 without a host", "", "192.0.2.7:5", "", false, "X-Forwarded-For:192.0.2.7\nX-Forwarded-Proto:http\n"},
		{"several lines", "x-forwarded-for:a\nX-Forwarded-For:b\n", "192.0.2.7:5", "h", false, "x-forwarded-for:a\nX-Forwarded-For:b, 192.0.2.7\nX-Forwarded-Host:h\nX-Forwarded-Proto:http\n"},
		{"an empty line", "X-Forwarded-For:\nX-Forwarded-Host:\nX-Forwarded-Proto:\n", "192.0.2.7:5", "h", false, "X-Forwarded-For:\nX-Forwarded-Host:\nX-Forwarded-Proto:\nX-Forwarded-For:192.0.2.7\n"},
		{"an upgrade", "Connection:x, upgrade\nUpgrade:websocket\nX:1\n", "192.0.2.7:5", "h", false, "Connection:Upgrade\nUpgrade:websocket\nX-Forwarded-For:192.0.2.7\nX-Forwarded-Host:h\nX-Forwarded-Proto:http\n"},
	} {
		in := parse(tt.in)
		r := &httpmsg.Request{Header: in, RemoteAddr: tt.remote, Host: tt.host, TLS: tt.tls}
		if got := format(outgoing(nil, r)); got != tt.out {
			t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.out)
		}
		if format(in) != tt.in {
			t.Errorf("%s: the client's header was changed", tt.name)
		}
	}
}

// A long list in Connection and many fields must not multiply.
func TestEndToEndIsLinear(t *testing.T) {
	h := httpmsg.Header{{Name: "Connection", Value: strings.Repeat("a,", 16<<10)}}
	for range 8 << 10 {
		h.Add("b", "")
	}
	shortest := time.Hour
	for range 5 {
		begun := time.Now()
		endToEnd(nil, h, token)
		shortest = min(shortest, time.Since(begun))
	}
	if shortest > 500*time.Millisecond {
		t.Errorf("it took %v", shortest)
	}
}

func FuzzEndToEnd(f *testing.F) {
	f.Add("Connection:a, b\nA:1\nC:2\n", "Micro-Token")
	f.Add("connection:,,\x00, close\nMICRO-TOKEN:x\n:y\n", "")
	f.Add("Connection:,\n:x\n", "")
	f.Fuzz(func(t *testing.T, text, extra string) {
		in := parse(text)
		out := endToEnd(nil, in, extra)
		rest := in
		for _, kept := range out {
			if hopByHop(kept.Name) || strings.EqualFold(kept.Name, extra) {
				t.Errorf("%q was kept", kept.Name)
			}
			if kept.Name != "" && !strings.EqualFold(kept.Name, "close") && kept.Name == strings.TrimSpace(kept.Name) && in.HasToken("Connection", strings.ToLower(kept.Name)) {
				t.Errorf("%q is named in Connection and was kept", kept.Name)
			}
			for len(rest) > 0 && rest[0] != kept {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				t.Fatalf("%v is not in the order of %v", out, in)
			}
			rest = rest[1:]
		}
	})
}
