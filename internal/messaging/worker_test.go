package messaging

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// posted is a request that the application got.
type posted struct {
	body    string
	header  http.Header
	attempt int
}

// worker is an application that takes messages.
type worker struct {
	*kept
	server *httptest.Server
	got    chan posted
	pushes *Pusher
}

// work posts the messages of topic t, queue q to an application.
func (k *kept) work(p Push, o PushOptions, answer func(w http.ResponseWriter, m posted)) *worker {
	k.Helper()
	w := &worker{kept: k, got: make(chan posted, 1000)}
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			k.Errorf("read a message: %v", err)
		}
		attempt, _ := strconv.Atoi(r.Header.Get("Micro-Attempt"))
		m := posted{string(body), r.Header, attempt}
		w.got <- m
		answer(rw, m)
	}))
	w.start(p, o)
	return w
}

// start begins to post, again if need be.
func (w *worker) start(p Push, o PushOptions) {
	w.Helper()
	p.Topic, p.Queue = "t", "q"
	if p.URL == "" {
		p.URL = w.server.URL + "/events"
	}
	if p.Concurrency == 0 {
		p.Concurrency = 4
	}
	var err error
	if w.pushes, err = w.StartPush(w.Context(), p, o); err != nil {
		w.Fatal(err)
	}
	pushes := w.pushes
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		_ = pushes.Stop(ctx)
		if w.server != nil {
			w.server.Close()
		}
	})
	w.eventually("the queue is there", func() bool {
		_, err := w.broker.Queue(w.Context(), "t", "q")
		return err == nil
	})
}

func (w *worker) next() posted {
	w.Helper()
	select {
	case m := <-w.got:
		return m
	case <-time.After(long):
		w.Fatal("no message came")
		return posted{}
	}
}

func (w *worker) expect(body string, attempt int) posted {
	w.Helper()
	m := w.next()
	if m.body != body || m.attempt != attempt {
		w.Fatalf("got %q, attempt %d; want %q, attempt %d", m.body, m.attempt, body, attempt)
	}
	return m
}

func (k *kept) letters() []Letter {
	k.Helper()
	letters, err := (&Admin{Broker: k.broker, Timeout: long}).DeadLetters(k.Context(), "t", "", 100)
	if err != nil {
		k.Fatal(err)
	}
	return letters
}
