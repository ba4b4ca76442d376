package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/broker"
)

// Push is a durable queue whose messages are posted to an application.
type Push struct {
	Topic, Queue string
	// URL is http or https; Socket, when set, is the path of the unix socket
	// that is spoken to instead of the URL's host.
	URL, Socket string
	// Concurrency is the most messages under way at a time.
	Concurrency int
	// Ordered: for each key one message at a time, in the order stored,
	// whatever fails, by all sidecars of the queue together. One of them has all
	// messages of the queue at a time.
	Ordered bool
	AckWait time.Duration
	// MaxDeliver is how many attempts make a message a dead letter; 0 is no
	// limit.
	MaxDeliver int
	// DeadLetter is the topic of the dead letters; "" is <topic>.dead.
	DeadLetter string
}

// Gate tells whether the application can be given messages. *health.State is
// one.
type Gate interface {
	Healthy() bool
	// Changed returns a channel that is closed at the next change.
	Changed() <-chan struct{}
}

// join is how its queue is joined.
func (p Push) join() broker.JoinOptions {
	o := broker.JoinOptions{Prefetch: p.Concurrency, QueueOptions: broker.QueueOptions{AckWait: p.AckWait, MaxInFlight: -1}}
	if p.Ordered {
		o.Prefetch = max(window, 2*p.Concurrency)
		o.MaxInFlight = o.Prefetch
	}
	return o
}

// PushOptions say whom a Push is for.
type PushOptions struct {
	// Gate, when set, holds messages back while the application is not healthy.
	Gate Gate
	// Probe, when set, looks at the application now. It is asked before a
	// message that failed too often becomes a dead letter: an application that
	// is down makes no good message a bad one.
	Probe func(context.Context) error
	// Declared, when set, is called once, as soon as the queue is there: what is
	// published from then on is kept for it.
	Declared func()
}

// Pusher is a Push that runs.
type Pusher struct {
	m      *Messaging
	broker broker.Durable
	p      Push
	o      PushOptions
	client *http.Client
	log    *slog.Logger

	declared sync.Once // tells PushOptions.Declared

	quit   context.Context // no further messages
	stop   context.CancelFunc
	killed context.Context // requests under way are given up
	kill   context.CancelFunc
	done   chan struct{}
	active atomic.Int64
}

// StartPush begins to post the messages of a durable queue. It returns when the
// queue is declared, so that what is published from then on is kept for it. An
// engine that fails to do that within Options.Timeout is away: it is tried on in
// the background. StartPush fails when the broker is not durable, or has no
// wildcards and the topic is a pattern.
func (m *Messaging) StartPush(ctx context.Context, p Push, o PushOptions) (*Pusher, error) {
	d, err := m.durable()
	if err != nil {
		return nil, err
	}
	if err := m.checkPattern(d, p.Topic); err != nil {
		return nil, err
	}
	w := newPusher(m, d, p, o)
	ctx, cancel := context.WithTimeout(ctx, m.o.Timeout)
	defer cancel()
	switch err := d.Declare(ctx, p.Topic, p.Queue, p.join().QueueOptions); {
	case err == nil:
		w.tellDeclared()
	case errors.Is(err, errors.ErrUnsupported):
		return nil, err //nolint:wrapcheck // it says what it did
	}
	go w.run()
	return w, nil
}

// tellDeclared tells, once, that the queue is there.
func (w *Pusher) tellDeclared() {
	if w.o.Declared != nil {
		w.declared.Do(w.o.Declared)
	}
}

func newPusher(m *Messaging, d broker.Durable, p Push, o PushOptions) *Pusher {
	if p.Concurrency < 1 {
		p.Concurrency = 1
	}
	dialer := net.Dialer{Timeout: m.o.Timeout}
	transport := &http.Transport{
		Proxy: nil, DisableCompression: true, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: p.Concurrency, IdleConnTimeout: 30 * time.Second,
		DialContext: dialer.DialContext, TLSHandshakeTimeout: m.o.Timeout,
		MaxResponseHeaderBytes: maxAnswer,
	}
	if p.Socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", p.Socket)
		}
	}
	w := &Pusher{
		m: m, broker: d, p: p, o: o, done: make(chan struct{}),
		log: m.log.With("topic", p.Topic, "queue", p.Queue),
		client: &http.Client{
			Transport: transport,
			// A redirect is an answer that is no success.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	w.quit, w.stop = context.WithCancel(context.Background())
	w.killed, w.kill = context.WithCancel(context.Background())
	return w
}

// Quit takes no further messages; those that wait are given back, requests
// under way go on.
func (w *Pusher) Quit() { w.stop() }

// Stop is Quit, and waits for the requests under way. When ctx ends first they
// are given up and their messages given back, which does not count as an
// attempt.
func (w *Pusher) Stop(ctx context.Context) error {
	w.Quit()
	defer w.kill()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
	}
	unfinished := w.active.Load()
	w.kill()
	<-w.done
	if unfinished == 0 {
		return nil
	}
	return fmt.Errorf("%d messages were given back while the application was working on them: %w", unfinished, ctx.Err())
}

// run delivers while the application is healthy, until quit.
func (w *Pusher) run() {
	defer close(w.done)
	defer w.client.CloseIdleConnections()
	// The queue is there from now on, also while the application is not.
	options := w.p.join()
	options.PrefetchBytes = int(w.m.o.MaxBuffered)
	for told := false; w.quit.Err() == nil; {
		member := w.m.joinPatiently(w.quit, w.broker, w.p.Topic, w.p.Queue, options)
		if member == nil {
			return
		}
		w.tellDeclared()
		if !w.healthy() {
			w.m.leaveQueue(member)
			if !told {
				w.log.Info("messages wait until the application is healthy")
			}
			told = true
			w.await(w.quit, true)
			continue
		}
		told = false
		w.session(member)
	}
}

func (w *Pusher) healthy() bool { return w.o.Gate == nil || w.o.Gate.Healthy() }

// changed is closed when the application is healthy no more, or again.
func (w *Pusher) changed() <-chan struct{} {
	if w.o.Gate == nil {
		return nil
	}
	return w.o.Gate.Changed()
}

// await returns when the application is healthy, or is not, or when ctx ends.
func (w *Pusher) await(ctx context.Context, healthy bool) {
	for {
		changed := w.changed()
		if w.healthy() == healthy {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// session delivers until the application is not healthy any more, or quit.
func (w *Pusher) session(member broker.Member) {
	w.log.Info("delivering messages to the application", "url", w.p.URL)
	ctx, end := context.WithCancel(w.quit)
	defer end()
	if w.o.Gate != nil {
		go func() {
			defer end()
			w.await(ctx, false)
		}()
	}
	defer w.m.leaveQueue(member)
	if w.p.Ordered {
		w.takeTurns(ctx, member)
		return
	}
	var busy sync.WaitGroup
	for {
		h, err := member.Receive(ctx)
		if err != nil {
			break // ctx has ended, or the broker is closed
		}
		if ctx.Err() != nil || !w.healthy() { // the watch above may not have run yet
			w.giveBack(h)
			break
		}
		busy.Go(func() { w.deliver(h) }) // the prefetch bounds them
	}
	w.drain(member)
	busy.Wait()
}

// drain gives the messages back that wait at the member; those under way go
// back when they are done.
func (w *Pusher) drain(member broker.Member) {
	draining, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	if err := member.Drain(draining); err != nil {
		w.log.Warn("messages could not be given back: they come again when their time is over", "error", err)
	}
}
