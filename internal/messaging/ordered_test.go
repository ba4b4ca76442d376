package messaging

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
)

// publishKeyed publishes a message with a key, or without when that is "".
func (k *kept) publishKeyed(key, body string) {
	k.Helper()
	m := broker.Message{Body: []byte(body)}
	if key != "" {
		m.Header = map[string]string{"Micro-Key": key}
	}
	if err := k.broker.Publish(k.Context(), "t", m); err != nil {
		k.Fatal(err)
	}
}

// A message that is tried again holds back those of its key and no others, and
// lets them go when it is a dead letter. Those without a key are one key.
func TestOrderedByKey(t *testing.T) {
	k := keep(t)
	release := make(chan struct{})
	w := k.work(Push{Ordered: true, Concurrency: 8, MaxDeliver: 3}, PushOptions{}, func(rw http.ResponseWriter, m posted) {
		switch m.body {
		case "a0", "none0":
			<-release
		case "bad0":
			rw.WriteHeader(http.StatusInternalServerError)
		}
	})
	for _, key := range []string{"a", "", "bad", "c"} {
		for i := range 3 {
			name := key
			if key == "" {
				name = "none"
			}
			k.publishKeyed(key, fmt.Sprint(name, i))
		}
	}
	got := map[string]int{}
	var order []string
	for len(order) < 10 { // all but what waits for a0 and none0
		m := w.next()
		got[m.body]++
		order = append(order, m.body)
	}
	if got["a1"]+got["none1"] > 0 {
		t.Errorf("a message did not wait for the one before it: %v", order)
	}
	close(release)
	for len(order) < 14 {
		order = append(order, w.next().body)
	}
	for name, want := range map[string]string{
		"a": "a0 a1 a2", "none": "none0 none1 none2", "bad": "bad0 bad0 bad0 bad1 bad2", "c": "c0 c1 c2",
	} {
		of := slices.DeleteFunc(slices.Clone(order), func(body string) bool { return strings.TrimRight(body, "012") != name })
		if strings.Join(of, " ") != want {
			t.Errorf("key %s: %v, want %s", name, of, want)
		}
	}
	k.settledAll("t", "q")
	if letters := k.letters(); len(letters) != 1 || string(letters[0].Body) != "bad0" || letters[0].Attempts != 3 {
		t.Errorf("dead letters: %+v", letters)
	}
}

// Different keys go on side by side, at most Concurrency of them, by one of the
// sidecars; when that stops, the other goes on where it was.
func TestOrderedSidecars(t *testing.T) {
	k := keep(t)
	const keys, each = 6, 20
	var mu sync.Mutex
	inside, most := map[string]bool{}, 0
	came := map[string][]string{}
	w := k.work(Push{Ordered: true, Concurrency: 3, AckWait: 2 * time.Second}, PushOptions{}, func(rw http.ResponseWriter, m posted) {
		key := m.header.Get("Micro-Key")
		mu.Lock()
		if inside[key] {
			t.Errorf("two of key %s at a time", key)
		}
		inside[key] = true
		most = max(most, len(inside))
		came[key] = append(came[key], m.body)
		mu.Unlock()
		<-time.After(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		delete(inside, key)
	})
	other, err := w.StartPush(t.Context(), Push{Topic: "t", Queue: "q", URL: w.server.URL, Ordered: true, Concurrency: 3, AckWait: 2 * time.Second}, PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	var want []string
	for i := range each {
		for key := range keys {
			k.publishKeyed(fmt.Sprint("k", key), fmt.Sprintf("%02d", i))
		}
		want = append(want, fmt.Sprintf("%02d", i))
		if i == each/2 {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), long)
				defer cancel()
				stopped <- w.pushes.Stop(ctx)
			}()
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("Stop: %v", err)
	}
	k.settledAll("t", "q")
	defer func() { _ = other.Stop(t.Context()) }()
	mu.Lock()
	defer mu.Unlock()
	if most > 3 {
		t.Errorf("%d messages at a time, want 3 at most", most)
	}
	for key, bodies := range came {
		if !slices.Equal(bodies, want) {
			t.Errorf("key %s: %v", key, bodies)
		}
	}
}

// A message of a publisher that knows no limits is a dead letter before it gets
// to the application.
func TestHeaderBeyondMeasure(t *testing.T) {
	k := keep(t)
	w := k.work(Push{}, PushOptions{}, func(http.ResponseWriter, posted) {})
	many := map[string]string{}
	for i := range maxReceivedHeaders + 1 {
		many[fmt.Sprint("X-", i)] = "x"
	}
	for _, header := range []map[string]string{many, {"X-Large": strings.Repeat("x", maxReceivedHeaderSize)}, {"X-Small": "x"}} {
		if err := k.broker.Publish(t.Context(), "t", broker.Message{Header: header, Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if m := w.expect("x", 1); m.header.Get("X-Small") != "x" {
		t.Errorf("the application got %d fields", len(m.header))
	}
	k.settledAll("t", "q")
	letters := k.letters()
	if len(letters) != 2 {
		t.Fatalf("%d dead letters, want 2", len(letters))
	}
	for _, part := range []string{"header fields, at most 272", "bytes, at most"} {
		if !strings.Contains(letters[0].Reason+letters[1].Reason, part) {
			t.Errorf("no letter says %q: %q, %q", part, letters[0].Reason, letters[1].Reason)
		}
	}
}
