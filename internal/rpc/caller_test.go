package rpc

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/transport"
)

func call(ctx context.Context, c *Caller, service string) (string, error) {
	b, err := c.Call(ctx, Request{Service: service, Method: "Say.Hello", Body: []byte(`{}`)})
	return string(b), err
}

func TestCallGoesToTheNextNodeWhenThatIsSafe(t *testing.T) {
	addr, _ := greeter(t)
	closes := server(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	live, broken := nodeAt(t, addr, nil), nodeAt(t, closes, nil)
	c := newCaller(t, table{
		"one-dead": {deadNode(t), live},
		"two-dead": {deadNode(t), deadNode(t), live},
		"dead":     {deadNode(t), deadNode(t)},
		"broken":   {broken, live},
		"none":     {},
	})
	if got, err := call(t.Context(), c, "one-dead"); err != nil || got != `{"text":"Hello"}` {
		t.Errorf("a dead node and a live one: %s, %v", got, err)
	}
	var failed *transport.NodeError
	if got, err := call(t.Context(), c, "two-dead"); err != nil || got != `{"text":"Hello"}` {
		t.Errorf("two dead nodes and a live one: %s, %v", got, err)
	}
	if _, err := call(t.Context(), c, "dead"); !errors.As(err, &failed) || failed.Sent {
		t.Errorf("nothing but dead nodes: %v", err)
	}
	if got, err := call(t.Context(), c, "broken"); !errors.As(err, &failed) || !failed.Sent {
		t.Errorf("a node that may have carried it out: %s, %v", got, err)
	}
	if _, err := call(t.Context(), c, "none"); statusOf(err) != 503 {
		t.Errorf("a service without nodes: %v", err)
	}
	if _, err := call(t.Context(), c, "nosuch"); statusOf(err) != 404 || err.Error() != "service nosuch not found" {
		t.Errorf("an unknown service: %v", err)
	}
	if live.Load.Latency.Load() <= 0 || live.Load.InFlight.Load() != 0 || broken.Load.Latency.Load() != 0 {
		t.Errorf("loads: %v, %v, %v", live.Load.Latency.Load(), live.Load.InFlight.Load(), broken.Load.Latency.Load())
	}
}

func TestCallTimeout(t *testing.T) {
	release := make(chan struct{})
	slow := nodeAt(t, server(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}), nil)
	defer close(release)
	c := newCaller(t, table{"slow": {slow}})
	for _, asked := range []time.Duration{0, 50 * time.Millisecond, time.Hour} {
		c.Timeout = 100 * time.Millisecond
		begun := time.Now()
		_, err := c.Call(t.Context(), Request{Service: "slow", Method: "Say.Hello", Timeout: asked})
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
			t.Errorf("timeout %v: %v after %v", asked, err, took)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := call(ctx, c, "slow"); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that goes: %v", err)
	}
}

func TestCallAtAnAddress(t *testing.T) {
	addr, seen := greeter(t)
	registered := nodeAt(t, server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", transport.JSON)
		_, _ = io.WriteString(w, `{"service":"`+r.Header.Get("Micro-Service")+`"}`)
	}), map[string]string{"protocol": "mucp"})
	c := newCaller(t, table{"svc": {deadNode(t), registered}})
	at := func(service, address string) (string, error) {
		b, err := c.Call(t.Context(), Request{Service: service, Method: "Say.Hello", Address: address})
		return string(b), err
	}
	if got, err := at("svc", registered.Addr); err != nil || got != `{"service":"svc"}` {
		t.Errorf("a registered node: %s, %v", got, err)
	}
	other := strings.TrimPrefix(addr, "http://")
	if _, err := at("svc", other); statusOf(err) != 403 {
		t.Errorf("another address: %v", err)
	}
	if _, err := at("nosuch", other); statusOf(err) != 404 {
		t.Errorf("another address of an unknown service: %v", err)
	}
	c.AnyAddress = true
	for _, service := range []string{"svc", "nosuch"} {
		if got, err := at(service, other); err != nil || got != `{"text":"Hello"}` {
			t.Errorf("another address of %s, allowed: %s, %v", service, got, err)
		}
	}
	if len(seen.bodies) != 2 || seen.bodies[0] != `{"method":"Say.Hello","params":[{}],"id":0}` {
		t.Errorf("the node got %q", seen.bodies)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Call(ended, Request{Service: "svc", Method: "Say.Hello", Address: other}); !errors.Is(err, context.Canceled) {
		t.Errorf("another address, too late: %v", err)
	}
	for _, bad := range []string{"localhost", "localhost:", ":80", "localhost:0", "localhost:99999", "localhost:http", "::1:80"} {
		if _, err := at("svc", bad); statusOf(err) != 400 {
			t.Errorf("address %q: %v", bad, err)
		}
	}
}

func TestCallsAtOnce(t *testing.T) {
	a, _ := greeter(t)
	b, _ := greeter(t)
	nodes := []*discovery.Node{nodeAt(t, a, nil), nodeAt(t, b, nil)}
	c := newCaller(t, table{"svc": nodes})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if got, err := call(t.Context(), c, "svc"); err != nil || got != `{"text":"Hello"}` {
					t.Errorf("%s, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, n := range nodes {
		if n.Load.InFlight.Load() != 0 {
			t.Errorf("%d requests left in flight", n.Load.InFlight.Load())
		}
	}
}
