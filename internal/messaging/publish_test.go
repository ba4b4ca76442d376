package messaging

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// record subscribes at the broker itself.
func (f *fixture) record(topic string) <-chan broker.Delivery {
	f.Helper()
	got := make(chan broker.Delivery, 100)
	_, err := f.broker.Subscribe(f.Context(), topic, broker.SubscribeOptions{}, func(d broker.Delivery) { got <- d })
	if err != nil {
		f.Fatal(err)
	}
	return got
}

func TestPublishKeepsBodyAndContentType(t *testing.T) {
	f := serve(t, nil)
	got := f.record("a topic/x")
	for _, contentType := range []string{"", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "application/protobuf", "no/such+type"} {
		body := "topic=other&\x00\xff" + contentType
		if status, detail := f.post("a topic/x", contentType, strings.NewReader(body)); status != 200 || detail != "" {
			t.Fatalf("%q: %d %q", contentType, status, detail)
		}
		d := f.receive(got)
		if string(d.Body) != body || d.Header["Content-Type"] != contentType {
			t.Errorf("published as %q, arrived as %q: %q", contentType, d.Header["Content-Type"], d.Body)
		}
	}
	if n := f.Counts().Published; n != 5 {
		t.Errorf("Published = %d", n)
	}
}

func TestPublishHeader(t *testing.T) {
	f := serve(t, nil)
	got := f.record("t")
	raw := "POST /broker?topic=t HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n" +
		"Keep-Alive: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: secret\r\nTE: trailers\r\nUpgrade: h2c\r\n" +
		"Accept-Encoding: gzip\r\nMicro-Token: secret\r\nExpect: 100-continue\r\nAuthorization: Bearer application\r\n" +
		"Timestamp: 1499951537\r\nX-Many: a\r\nX-Many: b, c\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\n\r\nx"
	if status := f.raw(raw); !strings.Contains(status, " 200 ") {
		t.Fatalf("answer: %s", status)
	}
	want := map[string]string{
		"Authorization": "Bearer application", "Timestamp": "1499951537", "X-Many": "a, b, c", "Cookie": "a=1; b=2", "X-Empty": "",
	}
	if d := f.receive(got); !maps.Equal(d.Header, want) {
		t.Errorf("header arrived as %q\nwant %q", d.Header, want)
	}
}

func (f *fixture) receive(from <-chan broker.Delivery) broker.Delivery {
	f.Helper()
	select {
	case d := <-from:
		return d
	case <-time.After(wait):
		f.Fatal("nothing was published")
		panic("unreachable")
	}
}

// raw sends bytes and returns the status line of the answer.
func (f *fixture) raw(request string) string {
	f.Helper()
	u, err := url.Parse(f.url)
	if err != nil {
		f.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(request)); err != nil {
		f.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		f.Fatal(err)
	}
	for answer := bufio.NewReader(conn); ; {
		line, err := answer.ReadString('\n')
		if err != nil {
			f.Fatal(err)
		}
		if strings.HasPrefix(line, "HTTP/1.1 ") && !strings.Contains(line, " 100 ") {
			return line
		}
	}
}

func TestPublishSizes(t *testing.T) {
	f := serve(t, nil)
	got := f.record("t")
	for _, size := range []int{0, 1, 4<<20 - 1, 4 << 20} {
		body := bytes.Repeat([]byte{'x'}, size)
		if status, detail := f.post("t", "", bytes.NewReader(body)); status != 200 {
			t.Fatalf("%d bytes: %d %s", size, status, detail)
		}
		if d := f.receive(got); !bytes.Equal(d.Body, body) {
			t.Errorf("%d bytes arrived as %d", size, len(d.Body))
		}
	}
	over := make([]byte, 4<<20+1)
	if status, detail := f.post("t", "", bytes.NewReader(over)); status != 413 || !strings.Contains(detail, "4194304") {
		t.Errorf("declared too large: %d %s", status, detail)
	}
	chunked := struct{ *bytes.Reader }{bytes.NewReader(over)}
	if status, detail := f.post("t", "", chunked); status != 413 {
		t.Errorf("chunked too large: %d %s", status, detail)
	}
}

func TestRefusals(t *testing.T) {
	f := serve(t, nil)
	for _, test := range []struct {
		method, query string
		want          int
		detail        string
	}{
		{"POST", "", 400, "no topic"},
		{"POST", "topic=", 400, "no topic"},
		{"POST", "topic=a&topic=b", 400, "2 times"},
		{"POST", "topic=%ff", 400, "UTF-8"},
		{"POST", "topic=%zz", 400, "malformed query"},
		{"GET", "", 400, "no topic"},
		{"GET", "topic=a&queue=%fe", 400, "UTF-8"},
		{"GET", "topic=a", 426, "WebSocket"},
		{"GET", "topic=a&ack=true", 400, "queue"},
		{"PUT", "topic=a", 405, "POST"},
		{"DELETE", "topic=a", 405, "POST"},
	} {
		request, err := http.NewRequestWithContext(t.Context(), test.method, f.url+"?"+test.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != test.want || !strings.Contains(body.String(), test.detail) {
			t.Errorf("%s ?%s: %d %q, want %d %q", test.method, test.query, response.StatusCode, body.String(), test.want, test.detail)
		}
		if response.StatusCode == 405 && response.Header.Get("Allow") != "DELETE, GET, POST" {
			t.Errorf("405 with Allow: %q", response.Header.Get("Allow"))
		}
		if response.StatusCode == 426 && response.Header.Get("Upgrade") != "websocket" {
			t.Errorf("426 with Upgrade: %q", response.Header.Get("Upgrade"))
		}
	}
}

// HTTP/2 has no field Upgrade, and clients reset the stream of an answer with
// it: what was wrong must be readable all the same.
func TestSubscribeOverHTTP2(t *testing.T) {
	m := serve(t, nil).Messaging
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(m)
	server.Config.Protocols = &protocols
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: &protocols}
	t.Cleanup(transport.CloseIdleConnections)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/broker?topic=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUpgradeRequired || response.ProtoMajor != 2 {
		t.Errorf("%s %s, want 426 over HTTP/2", response.Proto, response.Status)
	}
	for _, name := range []string{"Upgrade", "Connection"} {
		if values := response.Header.Values(name); values != nil {
			t.Errorf("%s: %q over HTTP/2", name, values)
		}
	}
}

func TestBrokerErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{errors.New("engine away"), 503},
		{broker.ErrClosed, 503},
		{fmt.Errorf("x: %w", broker.ErrTooLarge), 413},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), 504},
	} {
		f := serve(t, func(o *Options) { o.Broker = broken{err: test.err} })
		if status, detail := f.post("t", "", strings.NewReader("x")); status != test.want || !strings.HasSuffix(detail, test.err.Error()) {
			t.Errorf("publish with %v: %d %q, want %d", test.err, status, detail, test.want)
		} else if status == 413 && detail != test.err.Error() {
			t.Errorf("detail %q, want %q: the broker says what was being done", detail, test.err)
		}
		if line := f.raw(upgrade("t", "")); !strings.Contains(line, fmt.Sprintf(" %d ", test.want)) {
			t.Errorf("subscribe with %v: %s, want %d", test.err, line, test.want)
		}
		if n := f.Counts(); n != (Counts{}) {
			t.Errorf("counts after a failure: %+v", n)
		}
	}
}

// upgrade is a subscriber's handshake.
func upgrade(topic, extra string) string {
	return "GET /broker?topic=" + topic + " HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + extra + "\r\n"
}
