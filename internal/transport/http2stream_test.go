package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/micro/sidecar/internal/httpmsg"
)

func TestHTTP2Cancellation(t *testing.T) {
	codes := make(chan http2.ErrCode, 10)
	peer := startFrames(t, nil, func(n *frameNode) {
		n.until(func(f http2.Frame) bool {
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				if f.PseudoValue("path") == "/answered" {
					n.head(f.StreamID, false, ":status", "200")
				}
			case *http2.RSTStreamFrame:
				codes <- f.ErrCode
			case *http2.PingFrame:
				_ = n.WritePing(true, f.Data)
			}
			return false
		})
	})
	c := newClient(t, Options{})
	res, err := c.Do(t.Context(), peer, get("/answered"))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close() // before its end
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Do(ctx, peer, get("/")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	res, err = c.Do(ctx, peer, get("/answered"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := res.Body.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_ = res.Body.Close()
	broken := errors.New("the client is gone")
	r := post(io.MultiReader(strings.NewReader("abc"), failing{broken}), -1)
	if _, err := c.Do(t.Context(), peer, r); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	for range 4 {
		select {
		case code := <-codes:
			if code != http2.ErrCodeCancel {
				t.Errorf("code %v", code)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the node was not told")
		}
	}
}

// failing is a body that breaks off.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A reader that does not read stops the node, and the other way round.
func TestHTTP2FlowControl(t *testing.T) {
	var sent atomic.Int64
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			<-r.Context().Done()
			return
		}
		piece := make([]byte, 16<<10)
		for range 16 << 20 / len(piece) {
			n, err := w.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	c := newClient(t, Options{})
	res, err := c.Do(t.Context(), s.peer(), get("/"))
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the node has filled the window", func() bool { return sent.Load() >= streamWindow })
	if _, body := exchange2(t, c, s.peer(), get("/")); len(body) != 16<<20 { // meanwhile others are served
		t.Errorf("%d bytes", len(body))
	}
	if n := sent.Load() - 16<<20; n > 2*streamWindow {
		t.Errorf("the node sent %d bytes that nobody reads", n)
	}
	if n, err := io.Copy(io.Discard, res.Body); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	_ = res.Body.Close()

	read := &counter{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := c.Do(ctx, s.peer(), post(read, -1))
		done <- err
	}()
	var last int64
	wait(t, "the node's window is full", func() bool {
		before := last
		last = read.n.Load()
		time.Sleep(50 * time.Millisecond)
		return last > 0 && last == before
	})
	if last > 4<<20 {
		t.Errorf("%d bytes were taken that the node does not read", last)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// counter is an endless body.
type counter struct{ n atomic.Int64 }

func (c *counter) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func TestHTTP2Informational(t *testing.T) {
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>")
		w.WriteHeader(103)
		if _, err := io.Copy(w, r.Body); err != nil {
			t.Error(err)
		}
	})
	c := newClient(t, Options{})
	var hints []int
	f := &Forwarding{Informational: func(status int, _ httpmsg.Header) { hints = append(hints, status) }}
	r := post(strings.NewReader("hello"), 5)
	res, err := c.Forward(t.Context(), s.peer(), r, f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); string(b) != "hello" || err != nil || len(hints) != 1 || hints[0] != 103 {
		t.Errorf("%q, %v, hints %v", b, err, hints)
	}
}

func TestHTTP2Continue(t *testing.T) {
	s := startH2(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(417)
			return
		}
		_, _ = io.Copy(w, r.Body)
	})
	c := newClient(t, Options{})
	body := &counter{}
	r := post(body, -1)
	r.Target, r.Header = "/no", httpmsg.Header{{Name: "Expect", Value: "100-continue"}}
	res, err := c.Do(t.Context(), s.peer(), r)
	if err != nil || res.Status != 417 {
		t.Fatal(res, err)
	}
	_ = res.Body.Close()
	if n := body.n.Load(); n != 0 {
		t.Errorf("%d bytes were read of a body that nobody wanted", n)
	}
	r = post(strings.NewReader("hello"), 5)
	r.Header = httpmsg.Header{{Name: "Expect", Value: "100-continue"}}
	if res, got := exchange2(t, c, s.peer(), r); res.Status != 200 || got != "hello" {
		t.Errorf("%d %q", res.Status, got)
	}
}
