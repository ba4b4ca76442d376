// Package messaging is the sidecar's /broker endpoint: it publishes what is
// posted and hands what arrives to WebSocket subscribers, over any
// [broker.Broker]. It owns the frames, the subscribers' buffers and their
// connections; it does not own the broker, which its opener closes, and it
// decides no error's status line: Options.Fail does.
package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/httpmsg"
	"github.com/micro/sidecar/internal/stats"
)

// Options configure New. Broker and Fail are required.
type Options struct {
	Broker broker.Broker
	// Fail answers a request that was refused; err is an *httpmsg.Error.
	// Header fields that the status calls for are set already.
	Fail func(w http.ResponseWriter, r *http.Request, err error)
	// MaxBodySize is the largest message in bytes, posted or sent as a frame;
	// 0 is 4 MiB.
	MaxBodySize int64
	// Buffer is how many messages wait for one subscriber before it is cut; 0
	// is 256.
	Buffer int
	// MaxBuffered is how many bytes of messages wait for one subscriber before
	// it is cut; 0 is 16 MiB or four times MaxBodySize, whichever is more. A
	// single message always may wait.
	MaxBuffered int64
	// Timeout bounds a call of the broker; 0 is 5 s.
	Timeout time.Duration
	// WriteTimeout bounds the sending of one frame; 0 is 30 s.
	WriteTimeout time.Duration
	// PingInterval is how long a connection is silent before it is probed, and
	// PingTimeout how long the answer may take; 0 is 30 s and 10 s.
	PingInterval, PingTimeout time.Duration
	// OriginPatterns are the origins, other than the request's own host, from
	// which browsers may subscribe ("https://app.example.com", "*").
	OriginPatterns []string
	// OwnToken tells that a request's Authorization is meant for the sidecar,
	// so that it does not go into a message; nil means that it never is.
	OwnToken func(*http.Request) bool
	// Topics counts messages by topic; nil counts nowhere.
	Topics *stats.Topics
	// Log may be nil.
	Log *slog.Logger
}

// Messaging serves /broker. Its methods are safe for concurrent use.
type Messaging struct {
	o   Options
	log *slog.Logger

	published, delivered, cut atomic.Int64

	mu          sync.Mutex
	closing     bool
	subscribers map[*subscriber]bool
	idle        sync.Cond // on mu: a subscriber has gone
}

// Counts is a snapshot of what has happened since the start.
type Counts struct {
	Subscribers int   // connected now
	Published   int64 // messages that the broker took
	Delivered   int64 // frames that were sent to subscribers
	Cut         int64 // subscribers that were cut because they were slow
}

// New makes a Messaging.
func New(o Options) *Messaging {
	if o.MaxBodySize <= 0 {
		o.MaxBodySize = 4 << 20
	}
	if o.Buffer <= 0 {
		o.Buffer = 256
	}
	if o.MaxBuffered <= 0 {
		o.MaxBuffered = max(16<<20, 4*o.MaxBodySize)
	}
	for _, d := range []struct {
		set   *time.Duration
		value time.Duration
	}{
		{&o.Timeout, 5 * time.Second}, {&o.WriteTimeout, 30 * time.Second},
		{&o.PingInterval, 30 * time.Second}, {&o.PingTimeout, 10 * time.Second},
	} {
		if *d.set <= 0 {
			*d.set = d.value
		}
	}
	if o.OwnToken == nil {
		o.OwnToken = func(*http.Request) bool { return false }
	}
	if o.Topics == nil {
		o.Topics = new(stats.Topics)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Messaging{o: o, log: o.Log, subscribers: map[*subscriber]bool{}}
	m.idle.L = &m.mu
	return m
}

// ServeHTTP publishes a POST and subscribes a GET that upgrades to WebSocket.
func (m *Messaging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodPost:
		err = m.servePublish(w, r)
	case http.MethodGet:
		err = m.serveSubscribe(w, r)
	default:
		w.Header().Set("Allow", allow)
		err = &httpmsg.Error{
			Status: http.StatusMethodNotAllowed, Allow: allow,
			Detail: "POST publishes to /broker, GET with a WebSocket upgrade subscribes; " + r.Method + " does neither",
		}
	}
	if err != nil {
		m.o.Fail(w, r, err)
	}
}

const allow = "GET, POST"

// Counts returns what has happened so far.
func (m *Messaging) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Counts{
		Subscribers: len(m.subscribers),
		Published:   m.published.Load(),
		Delivered:   m.delivered.Load(),
		Cut:         m.cut.Load(),
	}
}

// Shutdown takes no new subscribers and closes those that are there with 1001,
// after they were sent what had arrived for them. When ctx ends first, the
// connections that are left are cut, and its error is returned. Publishing
// goes on: that ends with the listener.
func (m *Messaging) Shutdown(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closing = true
	for s := range m.subscribers {
		s.finish(goingAway())
	}
	defer context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for s := range m.subscribers {
			s.abort()
		}
		m.idle.Broadcast()
	})()
	for len(m.subscribers) > 0 && ctx.Err() == nil {
		m.idle.Wait()
	}
	if n := len(m.subscribers); n > 0 {
		return fmt.Errorf("close %d WebSocket subscribers: %w", n, ctx.Err())
	}
	return nil
}

// enter adds a subscriber unless the sidecar is shutting down.
func (m *Messaging) enter(s *subscriber) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	m.subscribers[s] = true
	return true
}

func (m *Messaging) leave(s *subscriber) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.subscribers, s)
	m.idle.Broadcast()
}

// query is what /broker is told in the request target.
type query struct{ topic, queue string }

func parseQuery(raw string) (query, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return query{}, httpmsg.Errorf(http.StatusBadRequest, "malformed query: %v", err)
	}
	var q query
	for _, p := range []struct {
		name string
		set  *string
	}{{"topic", &q.topic}, {"queue", &q.queue}} {
		switch given := values[p.name]; {
		case len(given) > 1:
			return query{}, httpmsg.Errorf(http.StatusBadRequest, "%s is given %d times, expected once", p.name, len(given))
		case len(given) == 1:
			*p.set = given[0]
		}
		if !utf8.ValidString(*p.set) {
			return query{}, httpmsg.Errorf(http.StatusBadRequest, "%s %q is not valid UTF-8", p.name, *p.set)
		}
	}
	if q.topic == "" {
		return query{}, httpmsg.Errorf(http.StatusBadRequest, "no topic: expected /broker?topic=NAME")
	}
	if ack := values.Get("ack"); ack != "" && ack != "false" {
		return query{}, httpmsg.Errorf(http.StatusNotImplemented, "ack=%s: messages are not acknowledged by this broker", ack)
	}
	return q, nil
}

// refusal turns an error of the broker, which says what was being done, into
// what the client is told.
func refusal(err error) *httpmsg.Error {
	switch {
	case errors.Is(err, broker.ErrTooLarge):
		return httpmsg.Errorf(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return httpmsg.Errorf(http.StatusGatewayTimeout, "the broker did not answer in time: %v", err)
	default:
		return httpmsg.Errorf(http.StatusServiceUnavailable, "%v", err)
	}
}
