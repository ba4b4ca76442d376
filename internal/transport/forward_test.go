package transport

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// A connection is used again, however long it was quiet, and however long the
// exchange on it took.
func TestConnectionsOutliveTheirDeadlines(t *testing.T) {
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "/slow") {
			time.Sleep(untied * 3 / 2)
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true
	})
	c := newClient(t, Options{})
	for _, target := range []string{"/", "/slow", "/slow", "/", "/"} {
		if res, body := roundTrip(t, c, w.addr, get(target)); res.Status != 200 || body != "ok" {
			t.Errorf("%s: %d %q", target, res.Status, body)
		}
		time.Sleep(untied * 5 / 4) // longer than the deadline for reading that was set
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

// A body that pauses for longer than the head may take is read to its end.
func TestHeadTimeoutIsForTheHead(t *testing.T) {
	end := make(chan bool)
	w := startWire(t, func(head, _ string) (string, bool) {
		if strings.Contains(head, "/never") {
			<-end
			return "", false
		}
		return "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", true
	})
	c := newClient(t, Options{})
	defer close(end)
	f := &Forwarding{HeadTimeout: 2 * untied}
	begun := time.Now()
	_, err := c.Forward(t.Context(), at(w.addr), get("/never"), f)
	if node := nodeError(err); !errors.Is(err, context.DeadlineExceeded) || node == nil || !node.Sent || time.Since(begun) < f.HeadTimeout {
		t.Errorf("got %v after %v", err, time.Since(begun))
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	res, err := c.Forward(ctx, at(w.addr), get("/"), f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b := make([]byte, 10)
	if n, err := res.Body.Read(b); string(b[:n]) != "a" || err != nil {
		t.Fatalf("%q, %v", b[:n], err)
	}
	got := make(chan error, 1)
	go func() { _, err := res.Body.Read(b); got <- err }()
	select {
	case err := <-got:
		t.Errorf("the body ended: %v", err)
	case <-time.After(2 * f.HeadTimeout):
		cancel()
		<-got
	}
}

// The end of the context ends an exchange in each of its phases.
func TestContextEndsAnExchange(t *testing.T) {
	stop := make(chan bool)
	w := startWire(t, func(head, _ string) (string, bool) {
		switch {
		case strings.Contains(head, "/head"):
			<-stop
			return "", false
		case strings.Contains(head, "/some"):
			return "HTTP/1.1 200 OK\r\nContent-Le", true
		}
		return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true
	})
	defer close(stop)
	c := newClient(t, Options{})
	for _, target := range []string{"/head", "/some", "/body"} {
		for _, after := range []time.Duration{untied / 4, untied * 2} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			res, err := c.Do(ctx, at(w.addr), get(target))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close() // it was cut
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s, cancelled after %v: %v", target, after, err)
			}

			ctx, cancel = context.WithTimeout(t.Context(), after)
			begun := time.Now()
			if res, err = c.Do(ctx, at(w.addr), get(target)); err == nil {
				_, err = io.ReadAll(res.Body)
				_ = res.Body.Close()
			}
			if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took < after {
				t.Errorf("%s, deadline after %v: %v after %v", target, after, err, took)
			}
			cancel()
		}
	}
}

// A request is sent although the deadline it began with has passed before.
func TestRequestThatIsHeldUpIsSent(t *testing.T) {
	w := startWire(t, func(string, string) (string, bool) { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true })
	c := newClient(t, Options{})
	roundTrip(t, c, w.addr, get("/")) // makes the connection
	kept := c.pool(at(w.addr)).idle[0]
	for range 3 {
		kept.until = time.Now().Add(untied) // what is set is not what is believed to be
		if err := kept.SetReadDeadline(aLongTimeAgo); err != nil {
			t.Fatal(err)
		}
		if res, body := roundTrip(t, c, w.addr, get("/")); res.Status != 200 || body != "ok" {
			t.Errorf("%d %q", res.Status, body)
		}
	}
	if n := w.connections(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}
