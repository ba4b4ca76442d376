package messaging

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/broker/nats"
	"github.com/micro/sidecar/internal/engine"
)

func TestIDAndDelay(t *testing.T) {
	k := keep(t)
	running, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.RunDelayed(running)
	}()
	defer func() {
		stop()
		<-done
	}()
	r := k.read("topic=t&queue=q")
	live := k.read("topic=other&queue=q")
	for range 3 {
		k.post("t", "once", "Micro-Id", "order-1")
	}
	start := time.Now()
	k.post("t", "late", "Micro-Delay", "700ms")
	k.post("t", "now")
	r.expect("once", 1)
	r.expect("now", 1)
	g := r.expect("late", 1)
	if d := time.Since(start); d < 700*time.Millisecond {
		t.Errorf("delivered after %v", d)
	}
	for name := range g.Header {
		if strings.HasPrefix(name, "Micro-Delay") {
			t.Errorf("header %s: %s", name, g.Header[name])
		}
	}
	for _, bad := range []string{"soon", "-1s", "100000h"} {
		if status, _ := k.request("POST", "topic=t", "x", "Micro-Delay", bad); status != 400 {
			t.Errorf("Micro-Delay: %s: %d", bad, status)
		}
	}
	_ = live.CloseNow()
}

func TestBatch(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	status, text := k.request("POST", "topic=t&batch=ndjson", "{\"a\":1}\r\n\n[2]\n\"three\"", "Micro-Id", "b", "Content-Type", "application/x-ndjson", "Source", "s")
	if status != 200 || strings.TrimSpace(text) != `{"published":3,"failed":[]}` {
		t.Fatalf("%d %s", status, text)
	}
	for i, body := range []string{`{"a":1}`, `[2]`, `"three"`} {
		g := r.expect(body, 1)
		id := []string{"b-1", "b-3", "b-4"}[i]
		if g.Header["Content-Type"] != "application/json" || g.Header["Source"] != "s" || g.Header["Micro-Id"] != id {
			t.Errorf("header %v", g.Header)
		}
	}
	status, text = k.request("POST", "topic=t&batch=ndjson", "1\noops\n3\n")
	var answer batchAnswer
	if err := json.Unmarshal([]byte(text), &answer); err != nil || status != 400 || answer.Published != 2 || len(answer.Failed) != 1 || answer.Failed[0].Line != 2 || answer.ID == "" {
		t.Errorf("%d %s", status, text)
	}
	large := strings.Repeat("1", 5<<20)
	if status, text = k.request("POST", "topic=t&batch=ndjson", large+"\n7\n"); status != 413 || !strings.Contains(text, `"published":1`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ = k.request("POST", "topic=t&batch=csv", "1"); status != 400 {
		t.Errorf("batch=csv: %d", status)
	}
}

// CloudEvents pass as they came, in both modes of HTTP.
func TestCloudEvents(t *testing.T) {
	k := keep(t)
	r := k.read("topic=t&queue=q")
	k.post("t", `{"a": 1}`, "Ce-Specversion", "1.0", "Ce-Type", "com.example", "Ce-Source", "/s?x=%20", "Ce-Id", "7", "Content-Type", "application/json")
	g := r.next()
	if string(g.Body) != `{"a": 1}` || g.Header["Ce-Source"] != "/s?x=%20" || g.Header["Ce-Specversion"] != "1.0" || g.Header["Content-Type"] != "application/json" {
		t.Errorf("binary mode: %+v", g)
	}
	event := `{ "specversion" : "1.0", "type":"com.example", "source":"/s", "id":"7", "data":{"a": 1}}`
	k.post("t", event, "Content-Type", "application/cloudevents+json")
	if g := r.next(); string(g.Body) != event || g.Header["Content-Type"] != "application/cloudevents+json" {
		t.Errorf("structured mode: %+v", g)
	}
}

func TestFullIs507(t *testing.T) {
	e, err := engine.Open(t.Context(), engine.Options{DataDir: t.TempDir(), CanHost: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	k := keepOn(t, e, nats.Options{MaxBytes: 1 << 20})
	r := k.read("topic=t&queue=q&prefetch=100")
	stored := 0
	var status int
	var text string
	for range 100 {
		if status, text = k.request("POST", "topic=t", strings.Repeat("x", 64<<10)); status != 200 {
			break
		}
		stored++
	}
	if status != http.StatusInsufficientStorage || stored == 0 {
		t.Fatalf("after %d messages: %d %s", stored, status, text)
	}
	for range stored { // nothing was dropped
		g := r.next()
		r.say(`{"Ack":%q}`, g.ID)
	}
	k.eventually("there is room again", func() bool {
		status, _ := k.request("POST", "topic=t", "fits")
		return status == 200
	})
	r.expect("fits", 1)
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("1\n2\r\n\n3"), int64(10))
	f.Add(bytes.Repeat([]byte("x"), 10000), int64(100))
	f.Fuzz(func(t *testing.T, data []byte, limit int64) {
		limit = 1 + (limit&0xffff+0x10000)&0xffff
		want := bytes.Split(data, []byte("\n"))
		if len(want[len(want)-1]) == 0 {
			want = want[:len(want)-1]
		}
		lines := newLineReader(bytes.NewReader(data), limit)
		for i, line := range want {
			line = bytes.TrimSuffix(line, []byte("\r"))
			got, err := lines.next()
			if int64(len(line)) > limit {
				if err == nil {
					t.Fatalf("line %d of %d bytes was taken, the limit is %d", i, len(line), limit)
				}
				continue
			}
			if err != nil || !bytes.Equal(got, line) {
				t.Fatalf("line %d: %q, %v; want %q", i, got, err, line)
			}
		}
		if got, err := lines.next(); !errors.Is(err, io.EOF) {
			t.Fatalf("behind the end: %q, %v", got, err)
		}
	})
}
