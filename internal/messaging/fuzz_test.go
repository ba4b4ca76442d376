package messaging

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/memory"
)

func FuzzFrame(f *testing.F) {
	f.Add("Timestamp", "1499951537", []byte("Hello World!"))
	f.Add("", "", []byte{})
	f.Add("k\"\\\n", "<&>\u2028\xff", []byte{0xff, 0})
	f.Fuzz(func(t *testing.T, key, value string, body []byte) {
		m := broker.Message{Header: map[string]string{key: value}, Body: body}
		got, err := appendFrame([]byte("before"), m)
		if err != nil {
			t.Fatal(err)
		}
		if body == nil {
			m.Body = []byte{}
		}
		want, err := json.Marshal(struct {
			Header map[string]string
			Body   []byte
		}{m.Header, m.Body})
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != "before"+string(want) {
			t.Fatalf("frame %s\nwant  %s", got, want)
		}
		var back frame
		if err := json.Unmarshal(want, &back); err != nil {
			t.Fatal(err)
		}
		text := utf8.ValidString(key) && utf8.ValidString(value)
		if !bytes.Equal(back.Body, body) || text && !maps.Equal(back.Header, m.Header) {
			t.Fatalf("came back as %q", back)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"", "topic=foo", "topic=a%20b&queue=q", "topic=%", "topic=a;b", "topic=%ff&topic", "ack=true&topic=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		v, err := parseValues(raw)
		var q query
		if err == nil {
			q, err = v.query()
		}
		if err == nil && (q.topic == "" || !utf8.ValidString(q.topic) || !utf8.ValidString(q.queue)) {
			t.Fatalf("%q: %+v", raw, q)
		}
	})
}

// FuzzConnection sends arbitrary bytes where frames are expected: the server
// must close the connection, not crash, hang or keep the subscriber.
func FuzzConnection(f *testing.F) {
	masked := func(head, length byte, payload string) []byte {
		return append([]byte{head, 0x80 | length, 0, 0, 0, 0}, payload...)
	}
	f.Add(masked(0x81, 5, "hello"))
	f.Add(masked(0x88, 2, "\x03\xe8"))
	f.Add(masked(0x89, 0, ""))
	f.Add(masked(0x01, 2, "he"))
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0xf1, 0x80, 0, 0, 0, 0})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	b := memory.New()
	m := New(Options{Broker: b, Fail: fail, MaxBodySize: 1 << 16})
	server := httptest.NewServer(http.HandlerFunc(m.ServeHTTP))
	f.Cleanup(func() { server.Close(); _ = b.Close() })
	address := strings.TrimPrefix(server.URL, "http://")
	f.Fuzz(func(t *testing.T, data []byte) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(upgrade("t", ""))); err != nil {
			t.Fatal(err)
		}
		answer := bufio.NewReader(conn)
		response, err := http.ReadResponse(answer, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("handshake: %v %v", response, err)
		}
		go func() { // the server may close before it has read everything
			_, _ = conn.Write(data)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		_, err = io.Copy(io.Discard, answer)
		if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
			t.Fatalf("the connection was not closed within %v", wait)
		}
		for deadline := time.Now().Add(wait); m.Counts().Subscribers > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the subscriber was kept")
			}
		}
	})
}
