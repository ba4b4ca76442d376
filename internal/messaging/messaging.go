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
	"strings"
	"sync"
	"sync/atomic"
	"time"

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
	// MaxBacklog is how many bytes of frames wait for all live subscribers
	// together before the slowest are cut, and how many bytes of messages all
	// durable ones hold; 0 is eight times MaxBuffered.
	MaxBacklog int64
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
	// Topics counts messages by topic; nil counts nowhere.
	Topics *stats.Topics
	// Name is what the broker is called in errors.
	Name string
	// NotDurable, when set, says why the broker's durable abilities must not
	// be used.
	NotDurable string
	// Log may be nil.
	Log *slog.Logger
}

// Messaging serves /broker. Its methods are safe for concurrent use.
type Messaging struct {
	o   Options
	log *slog.Logger

	published, delivered, cut, buried atomic.Int64

	fanout    fanout
	live      backlog   // frames for live subscribers
	durables  backlog   // messages of durable ones
	allowance allowance // of these

	mu          sync.Mutex
	closing     bool
	subscribers map[*connection]bool
	idle        sync.Cond // on mu: a subscriber has gone
}

// Counts is a snapshot of what has happened since the start.
type Counts struct {
	Subscribers int   // connected now
	Published   int64 // messages that the broker took
	Delivered   int64 // frames that were sent to subscribers
	Cut         int64 // subscribers that were cut because they were slow
	Buried      int64 // messages that became dead letters
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
	if o.MaxBacklog <= 0 {
		o.MaxBacklog = 8 * o.MaxBuffered
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
	if o.Topics == nil {
		o.Topics = new(stats.Topics)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	m := &Messaging{
		o: o, log: o.Log, subscribers: map[*connection]bool{},
		live: backlog{most: o.MaxBacklog}, durables: backlog{most: o.MaxBacklog}, allowance: allowance{left: o.MaxBacklog / 2},
	}
	m.idle.L = &m.mu
	return m
}

// ServeHTTP publishes a POST and subscribes a GET that upgrades to WebSocket;
// requests that name queues or dead letters look at them and manage them.
func (m *Messaging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodPost:
		err = m.servePost(w, r)
	case http.MethodGet:
		err = m.serveGet(w, r)
	case http.MethodDelete:
		err = m.serveDelete(w, r)
	default:
		err = wrongMethod(w, r)
	}
	if err != nil {
		m.o.Fail(w, r, err)
	}
}

const allow = "DELETE, GET, POST"

func wrongMethod(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Allow", allow)
	return &httpmsg.Error{
		Status: http.StatusMethodNotAllowed, Allow: allow,
		Detail: "POST publishes to /broker, GET with a WebSocket upgrade subscribes, DELETE removes a durable queue that is named; this " + r.Method + " does nothing",
	}
}

// Counts returns what has happened so far.
func (m *Messaging) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Counts{
		Subscribers: len(m.subscribers),
		Published:   m.published.Load(),
		Delivered:   m.delivered.Load(),
		Cut:         m.cut.Load(),
		Buried:      m.buried.Load(),
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
		m.idle.Broadcast()
	})()
	for len(m.subscribers) > 0 && ctx.Err() == nil {
		m.idle.Wait()
	}
	n := len(m.subscribers)
	if n == 0 {
		return nil
	}
	for s := range m.subscribers {
		s.abort()
	}
	return fmt.Errorf("close %d WebSocket subscribers: %w", n, ctx.Err())
}

// enter adds a subscriber unless the sidecar is shutting down.
func (m *Messaging) enter(c *connection) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		return false
	}
	m.subscribers[c] = true
	return true
}

func (m *Messaging) leave(c *connection) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.subscribers, c)
	m.idle.Broadcast()
}

// Unsupported is the text of an error that wraps [errors.ErrUnsupported], for
// people: what cannot be done, and why, without that error's own words.
func Unsupported(err error) string {
	return strings.TrimSuffix(err.Error(), ": "+errors.ErrUnsupported.Error())
}

// refusal turns an error of the broker, which says what was being done, into
// what the client is told.
func refusal(err error) *httpmsg.Error {
	switch {
	case errors.Is(err, broker.ErrTooLarge):
		return httpmsg.Errorf(http.StatusRequestEntityTooLarge, "%v", err)
	case errors.Is(err, broker.ErrFull):
		return httpmsg.Errorf(http.StatusInsufficientStorage, "%v; \"micro queue list\" shows what holds messages", err)
	case errors.Is(err, errors.ErrUnsupported):
		return httpmsg.Errorf(http.StatusNotImplemented, "%s", Unsupported(err))
	case errors.Is(err, broker.ErrNoQueue), errors.Is(err, broker.ErrNoMessage):
		return httpmsg.Errorf(http.StatusNotFound, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return httpmsg.Errorf(http.StatusGatewayTimeout, "the broker did not answer in time: %v", err)
	default:
		return httpmsg.Errorf(http.StatusServiceUnavailable, "%v", err)
	}
}
