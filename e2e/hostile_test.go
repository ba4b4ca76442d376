//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// foe is a client that speaks to the sidecar byte by byte.
type foe struct {
	net.Conn
	r *bufio.Reader
}

func (s *sidecar) foe() (*foe, error) {
	conn, err := net.DialTimeout("tcp", s.addr, patient)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(2 * patient))
	return &foe{conn, bufio.NewReader(conn)}, nil
}

// upgrade opens a WebSocket, on which nothing is read by itself.
func (s *sidecar) upgrade(query string) (*foe, error) {
	f, err := s.foe()
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "GET /broker?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", query)
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(f.r, nil); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// frame is a client's, with a mask of zeros.
func frame(head byte, payload string) []byte {
	b := []byte{head}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

const (
	text, more, binaryFrame, closing, ping = 0x81, 0x00, 0x82, 0x88, 0x89
	firstText                              = 0x01
)

// drained reads until the sidecar closes the connection; the error says that it did not.
func (f *foe) drained() error {
	_, err := io.Copy(io.Discard, f.r)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("the sidecar keeps the connection")
	}
	return nil
}

// TestHostileFrames breaks the WebSocket protocol in each way: the connection
// ends, nothing of it is published, and the sidecar serves on.
func TestHostileFrames(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	s := w.sidecar(t)
	victim := s.subscribe("frames", "")
	for _, query := range []string{"topic=frames", "topic=frames&queue=q&ack=true"} {
		for name, bytes := range map[string][]byte{
			"unmasked":              {text, 2, 'h', 'i'},
			"reserved bits":         frame(0xf1, "x"),
			"compressed":            frame(0xc1, "x"),
			"reserved opcode":       frame(0x83, "x"),
			"long ping":             frame(ping, strings.Repeat("x", 126)),
			"fragmented ping":       frame(0x09, "x"),
			"no beginning":          frame(more, "x"),
			"two beginnings":        append(frame(firstText, "x"), frame(firstText, "y")...),
			"length of 2^63":        {binaryFrame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
			"close of one byte":     frame(closing, "x"),
			"close with odd code":   frame(closing, "\x00\x01"),
			"close and no text":     frame(closing, "\x03\xe8\xff"),
			"HTTP":                  []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
			"a message and nothing": append(frame(closing, "\x03\xe8"), frame(text, `{"Publish":{"Body":"eA=="}}`)...),
		} {
			f, err := s.upgrade(query)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, _ = f.Write(bytes) // it may be closed at once
			if err := f.drained(); err != nil {
				t.Errorf("%s on %s: %v", name, query, err)
			}
			_ = f.Close()
		}
	}
	s.post("/broker?topic=frames", "well").is(t, 200, "")
	if m := victim.message(); string(m.Body) != "well" {
		t.Errorf("something of it was published: %.100q", m.Body)
	}
	s.idle(t)
}

// idle waits until the sidecar has no subscriber but the given number's.
func (s *sidecar) idle(t *testing.T) {
	t.Helper()
	within(t, patient, "the subscribers to be gone", func() bool { return s.metric("micro_message_subscribers") <= 1 })
}

// TestHostileFloods sends what is allowed, too much of it: everything is
// answered or the connection ends, and memory stays.
func TestHostileFloods(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	s := w.sidecar(t)
	s.post("/broker?topic=floods", "x").is(t, 200, "")
	before := s.cost()
	const durable = "topic=floods&queue=q&ack=true"
	flood := func(what, query string, part []byte, times int) {
		t.Helper()
		begun := time.Now()
		f, err := s.upgrade(query)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		read := make(chan error, 1)
		go func() { read <- f.drained() }()
		for range times {
			if _, err := f.Write(part); err != nil {
				break
			}
		}
		_, _ = f.Write(frame(closing, "\x03\xe8"))
		if err := <-read; err != nil {
			t.Errorf("%s: %v", what, err)
		}
		now := s.cost()
		t.Logf("%s: %v; %v", what, time.Since(begun).Round(time.Millisecond), now)
	}
	many := func(part []byte, times int) []byte { return bytes.Repeat(part, times) }
	flood("pings", "topic=floods", many(frame(ping, strings.Repeat("x", 125)), 100), 500)
	flood("unknown ids", durable, many(frame(text, `{"Ack":"nosuch"}`), 100), 100)
	flood("nonsense", durable, many(frame(text, strings.Repeat("[", 1000)), 100), 50)
	flood("fragments of a byte", "topic=floods", many(frame(more, "x"), 1000), 1)
	flood("one message of fragments", "topic=floods", append(frame(firstText, "x"), many(frame(more, "x"), 100_000)...), 1)
	flood("fragments of nothing", "topic=floods", append(frame(firstText, "x"), many(append(frame(more, ""), frame(ping, "")...), 100_000)...), 1)
	flood("endless message", "topic=floods", append(frame(firstText, "x"), many(frame(more, strings.Repeat("x", 64<<10)), 100)...), 1)
	flood("invalid UTF-8", "topic=floods", frame(text, "\xff\xfe"), 100)
	flood("publishing", durable, many(frame(text, `{"Publish":{"Body":"eA=="}}`), 100), 20)
	s.idle(t)
	after := s.cost()
	t.Logf("before: %v\nafter: %v", before, after)
	if after.resident > before.resident+100 {
		t.Errorf("%.0f MB resident, %.0f before", after.resident, before.resident)
	}
	s.post("/broker?topic=floods", "x").is(t, 200, "")
}

// TestHostileCrowd has many subscribers come that do not read, and leave: what
// the sidecar holds for them is bounded, and nothing of it stays.
func TestHostileCrowd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	s := w.sidecar(t, "--max_body_size=1MiB") // 16 MiB for a subscriber, 128 MiB for all
	s.post("/broker?topic=crowd", "x").is(t, 200, "")
	before := s.cost()
	const crowd = 200
	large := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		what     string
		query    func(i int) string
		topics   int
		messages int
		most     float64 // megabytes resident
	}{
		// One frame for all.
		{"live", func(int) string { return "topic=crowd0" }, 1, 10, 300},
		{"live, a topic each", func(i int) string { return fmt.Sprint("topic=crowd", i) }, 30, 10, 700},
		{"durable, a queue each", func(i int) string { return fmt.Sprintf("topic=crowd0&ack=true&queue=q%d", i) }, 1, 4, 1000},
	} {
		begun := time.Now()
		all := s.crowd(t, crowd, c.query)
		came := time.Since(begun)
		highest := cost{}
		for i := range c.topics {
			for range c.messages {
				// On a busy machine an engine may take longer than a publisher waits.
				s.ask("POST", fmt.Sprint("/broker?topic=crowd", i), large)
				if now := s.cost(); now.resident > highest.resident {
					highest = now
				}
			}
		}
		t.Logf("%s: %d came in %v, %v in all; at most %v", c.what, len(all), came.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond), highest)
		if highest.resident > c.most {
			t.Errorf("%s: %.0f MB were resident, at most %.0f", c.what, highest.resident, c.most)
		}
		for _, f := range all {
			_ = f.Close()
		}
		within(t, patient, "the subscribers to be gone", func() bool { return s.metric("micro_message_subscribers") == 0 })
	}
	for i := range crowd { // whose consumers are the embedded engine's
		s.ask("DELETE", fmt.Sprintf("/broker?topic=crowd0&queue=q%d", i), "").is(t, 200, "")
	}
	now := cost{}
	t.Cleanup(func() { t.Logf("before: %v; after: %v", before, now) })
	within(t, patient, "goroutines and files to be as before", func() bool {
		now = s.cost()
		return now.goroutines < before.goroutines+20 && now.files < before.files+10
	})
	s.post("/broker?topic=crowd", "x").is(t, 200, "")
}

// crowd opens so many WebSockets.
func (s *sidecar) crowd(t *testing.T, n int, query func(i int) string) (all []*foe) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	turn := make(chan struct{}, 32)
	for i := range n {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			f, err := s.upgrade(query(i))
			if err != nil {
				t.Errorf("subscriber %d: %v", i, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, f)
		})
	}
	wg.Wait()
	return all
}
