package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/broker/redis"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/testserver"
)

const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// A server that is killed and comes back: what it has acknowledged is there,
// members and live subscribers go on by themselves.
func TestRestart(t *testing.T) {
	server := testserver.Redis(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "orders", "billing", broker.JoinOptions{Prefetch: 100})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1000)
	if _, err := b.Subscribe(within(t), "orders", broker.SubscribeOptions{Queue: "live"}, func(d broker.Delivery) { heard <- string(d.Body) }); err != nil {
		t.Fatal(err)
	}
	stored := map[string]bool{}
	for i := range 50 {
		body := fmt.Sprint("before ", i)
		if err := b.Publish(within(t), "orders", broker.Message{Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
		stored[body] = true
	}
	server.Stop()
	if err := b.Ping(within(t)); err == nil {
		t.Error("Ping of a dead server: no error")
	}
	if err := b.Publish(within(t), "orders", broker.Message{Body: []byte("lost")}); err == nil {
		t.Error("Publish to a dead server: no error")
	}
	server.Restart()
	for len(stored) > 0 {
		held, err := m.Receive(within(t))
		if err != nil {
			if within(t).Err() != nil {
				t.Fatal(err)
			}
			continue // a connection from before
		}
		if err := held.Ack(within(t)); err != nil {
			t.Fatal(err)
		}
		delete(stored, string(held.Body))
	}
	// The live subscriber is back in its queue sooner or later.
	for ctx := within(t); ; {
		if err := b.Publish(ctx, "orders", broker.Message{Body: []byte("after")}); err != nil {
			t.Fatal(err)
		}
		select {
		case body := <-heard:
			if body == "after" {
				return
			}
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal("the live subscriber does not come back")
		}
	}
}

// When the server has no room for more, publishing fails and nothing that was
// stored goes.
func TestFull(t *testing.T) {
	server := testserver.Redis(t, "--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
	b := open(t, server)
	defer b.Close()
	if err := b.Declare(within(t), "orders", "q", broker.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 64<<10)
	stored := 0
	var err error
	for range 1000 {
		if err = b.Publish(within(t), "orders", broker.Message{Body: body}); err != nil {
			break
		}
		stored++
	}
	if !errors.Is(err, broker.ErrFull) {
		t.Fatalf("after %d messages: %v, want ErrFull", stored, err)
	}
	m, err := b.Join(within(t), "orders", "q", broker.JoinOptions{Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range stored {
		held, err := m.Receive(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Ack(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Publish(within(t), "orders", broker.Message{Body: body}); err != nil {
		t.Errorf("there is room again: %v", err)
	}
}

func TestEvictionRefused(t *testing.T) {
	server := testserver.Redis(t, "--maxmemory", "16mb", "--maxmemory-policy", "allkeys-lru")
	b := open(t, server)
	defer b.Close()
	err := b.Declare(within(t), "orders", "q", broker.QueueOptions{})
	if err == nil || !strings.Contains(err.Error(), "allkeys-lru") {
		t.Errorf("Declare: %v, want a refusal", err)
	}
	if err := b.Publish(within(t), "orders", broker.Message{}); err != nil {
		t.Errorf("live messaging works all the same: %v", err)
	}
}

// A call ends with its context although the server does not answer.
func TestPaused(t *testing.T) {
	server := testserver.Redis(t)
	b := open(t, server)
	defer b.Close()
	if err := b.Publish(within(t), "t", broker.Message{}); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	defer server.Continue()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, call := range []func() error{
		func() error { return b.Publish(ctx, "t", broker.Message{}) },
		func() error {
			_, err := b.Subscribe(ctx, "t", broker.SubscribeOptions{}, func(broker.Delivery) {})
			return err
		},
		func() error { return b.Declare(ctx, "t", "q", broker.QueueOptions{}) },
		func() error { return b.Ping(ctx) },
	} {
		wg.Go(func() {
			if err := call(); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
		})
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	wg.Wait()
}

// Whatever others write into our stream is a message, and does no harm.
func TestForeignEntry(t *testing.T) {
	server := testserver.Redis(t)
	b := open(t, server)
	defer b.Close()
	m, err := b.Join(within(t), "t", "q", broker.JoinOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server.Do(t, "XADD", "micro:{t}:log", "*", "other", "thing")
	held, err := m.Receive(within(t))
	if err != nil || string(held.Body) != "thing" {
		t.Fatalf("received %v, %v", held, err)
	}
	if err := held.Ack(within(t)); err != nil {
		t.Error(err)
	}
}

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:6379":             "",
		"redis://u:p@a/3":            "",
		"rediss://a:1?insecure=true": "",
		"a:1,b:2?master=main":        "",
		"a:1,b:2":                    "master=NAME",
		"redis://a/x":                "number of a database",
		"redis://a/3/4":              "number of a database",
		"redis://a?mastr=x":          "master",
		"nats://a":                   "redis or rediss",
		"redis://a?pool_size=0":      "pool_size",
	} {
		u, err := engineurl.Parse("redis", text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		err = redis.CheckAddress(u)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if err := redis.CheckAddress((*url.URL)(nil)); err != nil {
		t.Error(err)
	}
}

// A batch that finds no room is refused as a whole, and named.
func TestFullForABatch(t *testing.T) {
	server := testserver.Redis(t, "--maxmemory", "6mb", "--maxmemory-policy", "noeviction")
	b := open(t, server)
	defer b.Close()
	if err := b.Declare(within(t), "orders", "q", broker.QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	all := make([]broker.Message, 300)
	for i := range all {
		all[i].Body = make([]byte, 64<<10)
	}
	stored := 0
	full := false
	for _, err := range b.PublishAll(within(t), "orders", make([]string, len(all)), all) {
		switch {
		case err == nil && full:
			t.Fatal("a message behind one that found no room was taken")
		case err == nil:
			stored++
		case errors.Is(err, broker.ErrFull):
			full = true
		default:
			t.Fatal(err)
		}
	}
	info, err := b.Queue(within(t), "orders", "q")
	if err != nil || !full || stored == 0 || info.Lag != stored {
		t.Errorf("%d of %d messages were taken (full: %v), %d are there, %v", stored, len(all), full, info.Lag, err)
	}
}
