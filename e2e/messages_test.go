//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// testMessages checks frames to the letter.
func testMessages(t *testing.T, w world) {
	s := w.sidecar(t)
	sub := s.subscribe("frames/of a*topic.>", "")
	const path = "/broker?topic=frames%2Fof+a*topic.%3E"
	s.ask("POST", path, "Hello World!", "Timestamp", "1499951537", "X-Odd", "ä\"\\", "User-Agent", "").is(t, 200, "")
	frame := sub.next()
	if !sameJSON(string(frame), `{"Header":{"Timestamp":"1499951537","X-Odd":"ä\"\\"},"Body":"SGVsbG8gV29ybGQh"}`) {
		t.Errorf("frame %s", frame)
	}
	s.ask("POST", path, "", "User-Agent", "").is(t, 200, "")
	if frame := sub.next(); !sameJSON(string(frame), `{"Header":{},"Body":""}`) {
		t.Errorf("frame of an empty message: %s", frame)
	}
	// What a client sends is published, to itself as well.
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := sub.conn.Write(ctx, websocket.MessageText, []byte("from a frame")); err != nil {
		t.Fatal(err)
	}
	if m := sub.message(); string(m.Body) != "from a frame" {
		t.Errorf("message %v", m)
	}
	// Nobody listens: that is no error.
	s.ask("POST", "/broker?topic=messages.nobody", "x").is(t, 200, "")
	sub.quiet("a message on another topic")
}

// testMessagesAcross has two sidecars on one engine.
func testMessagesAcross(t *testing.T, w world) {
	const topic, messages = "across", 60
	a, b := w.sidecar(t), w.sidecar(t)
	plain := []*socket{a.subscribe(topic, ""), a.subscribe(topic, ""), b.subscribe(topic, "")}
	queue := []*socket{a.subscribe(topic, "q"), a.subscribe(topic, "q"), b.subscribe(topic, "q")}
	other := b.subscribe(topic, "other")
	closing := b.subscribe(topic, "q") // leaves: what comes later is for the others
	_ = closing.conn.Close(websocket.StatusNormalClosure, "")
	if err := <-closing.ended; err == nil {
		t.Error("a subscription that was closed ended without a word")
	}
	within(t, patient, "the sidecar to have closed it, too", func() bool {
		return strings.Contains(b.get("/metrics").body, "\nmicro_message_subscribers 3\n")
	})

	for i := range messages {
		from := a
		if i%2 == 1 {
			from = b
		}
		from.ask("POST", "/broker?topic="+topic, strconv.Itoa(i)).is(t, 200, "")
	}
	for n, k := range append(plain, other) {
		seen := map[string]bool{}
		for range messages {
			seen[string(k.message().Body)] = true
		}
		if len(seen) != messages {
			t.Errorf("subscriber %d got %d of %d messages", n, len(seen), messages)
		}
		k.quiet("a message came twice")
	}
	seen, share := map[string]int{}, make([]int, len(queue))
	within(t, patient, "the queue to have every message", func() bool {
		for i, k := range queue {
			for len(k.frames) > 0 {
				seen[string(k.message().Body)]++
				share[i]++
			}
		}
		return len(seen) == messages
	})
	for body, n := range seen {
		if n != 1 {
			t.Errorf("message %s went to the queue %d times", body, n)
		}
	}
	for i, n := range share {
		if n == 0 {
			t.Errorf("member %d of the queue got nothing: %v", i, share)
		}
	}
}

// testLargeMessages goes to the limit of 4 MiB and past it.
func testLargeMessages(t *testing.T, w world) {
	a, b := w.sidecar(t), w.sidecar(t)
	here, there := a.subscribe("large", ""), b.subscribe("large", "")
	body := make([]byte, tooLarge-1)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(body) // never fails
	for _, size := range []int{1, 64 << 10, 1 << 20, len(body)} {
		a.ask("POST", "/broker?topic=large", string(body[:size]), contentType, "application/octet-stream").is(t, 200, "")
		for what, k := range map[string]*socket{"same": here, "other": there} {
			if m := k.message(); !bytes.Equal(m.Body, body[:size]) {
				t.Errorf("%d bytes to a subscriber of the %s sidecar: %d bytes came", size, what, len(m.Body))
			}
		}
	}
	a.ask("POST", "/broker?topic=large", string(body)+"x").refused(t, 413, strconv.Itoa(len(body)))

	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	if err := here.conn.Write(ctx, websocket.MessageBinary, body); err != nil {
		t.Fatal(err)
	}
	if m := there.message(); !bytes.Equal(m.Body, body) {
		t.Errorf("a frame of %d bytes: %d bytes came", len(body), len(m.Body))
	}
	if err := there.conn.Write(ctx, websocket.MessageBinary, append(body, 'x')); err == nil {
		if err := <-there.ended; websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
			t.Errorf("a frame over the limit: %v, want 1009", err)
		}
	}
}

// testSlowSubscriber has a subscriber that reads nothing beside one that does.
func testSlowSubscriber(t *testing.T, w world) {
	const topic, limit = "slow", 200 // MiB, far more than any buffer holds
	s := w.sidecar(t)
	slow := s.dial("/broker?topic=" + topic)
	fast := s.subscribe(topic, "")
	body := strings.Repeat("x", 1<<20)
	wasCut := func() bool { return strings.Contains(s.log.String(), "slow subscriber cut") }
	type ending struct {
		err  error
		took time.Duration // since it was not cut yet; it has five seconds to read
	}
	told := make(chan ending, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		since := time.Now()
		for tick := time.NewTicker(5 * time.Millisecond); !wasCut() && ctx.Err() == nil; <-tick.C {
			since = time.Now()
		}
		err := lastWord(ctx, slow, base64.StdEncoding.EncodedLen(len(body)))
		told <- ending{err, time.Since(since)}
	}()
	var longest time.Duration
	cut := 0 // when the slow one was
	messages := 0
	for ; cut == 0 || messages < cut+10; messages++ {
		if messages == limit {
			t.Fatal("the slow subscriber was never cut")
		}
		begun := time.Now()
		s.ask("POST", "/broker?topic="+topic, fmt.Sprintf("%08d%s", messages, body)).is(t, 200, "")
		m := fast.message()
		longest = max(longest, time.Since(begun))
		if got := string(m.Body[:8]); got != fmt.Sprintf("%08d", messages) {
			t.Fatalf("message %d is %s", messages, got)
		}
		if cut == 0 && wasCut() {
			cut = messages
		}
	}
	t.Logf("%d MiB, the longest from publish to the fast subscriber %v; cut after %d", messages, longest.Round(time.Millisecond), cut)
	if longest > 15*time.Second {
		t.Errorf("the slow subscriber slowed the other one: %v", longest)
	}
	switch end := <-told; {
	case websocket.CloseStatus(end.err) == websocket.StatusPolicyViolation && strings.Contains(end.err.Error(), "slow"):
	case end.took > 4*time.Second:
		t.Logf("this machine is too busy to read it in time: %v after %v", end.err, end.took)
	default:
		t.Errorf("%v after %v, want 1008 and why", end.err, end.took)
	}
}

// lastWord reads frames, each of a length at least, until the connection ends.
func lastWord(ctx context.Context, conn *websocket.Conn, atLeast int) error {
	for n := 0; ; n++ {
		_, frame, err := conn.Read(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("after %d frames: %w", n, err)
		case len(frame) < atLeast:
			return fmt.Errorf("frame %d: %d bytes", n, len(frame))
		}
	}
}
