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
}

// pusher runs one Push.
type pusher struct {
	m      *Messaging
	broker broker.Durable
	p      Push
	o      PushOptions
	client *http.Client
	log    *slog.Logger

	quit   context.Context // no further messages
	stop   context.CancelFunc
	killed context.Context // requests under way are given up
	kill   context.CancelFunc
	done   chan struct{}
	active atomic.Int64
}

// Pushes are the running ones of a sidecar.
type Pushes struct{ all []*pusher }

// StartPush begins to post the messages of durable queues. It fails when the
// broker is not durable, or has no wildcards and one of the topics is a
// pattern; an engine that is away is waited for.
func (m *Messaging) StartPush(pushes []Push, options func(Push) PushOptions) (*Pushes, error) {
	started := &Pushes{}
	if len(pushes) == 0 {
		return started, nil
	}
	d, err := m.durable()
	if err != nil {
		return started, err
	}
	for _, p := range pushes {
		if _, ok := d.(broker.Wildcards); !ok && IsPattern(p.Topic) {
			return started, fmt.Errorf("topic %s: the %s broker has no wildcards: %w", p.Topic, m.name(), errors.ErrUnsupported)
		}
	}
	for _, p := range pushes {
		if err := m.canKeep(d, p); err != nil {
			return started, err
		}
		w := newPusher(m, d, p, options(p))
		started.all = append(started.all, w)
		go w.run()
	}
	return started, nil
}

// canKeep declares the queue and says when the engine cannot do that at all.
func (m *Messaging) canKeep(d broker.Durable, p Push) error {
	ctx, cancel := context.WithTimeout(context.Background(), m.o.Timeout)
	defer cancel()
	if err := d.Declare(ctx, p.Topic, p.Queue, p.join().QueueOptions); errors.Is(err, errors.ErrUnsupported) {
		return err //nolint:wrapcheck // it says what it did
	}
	return nil // an engine that is away is waited for
}

func newPusher(m *Messaging, d broker.Durable, p Push, o PushOptions) *pusher {
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
	w := &pusher{
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
func (p *Pushes) Quit() {
	if p == nil {
		return
	}
	for _, w := range p.all {
		w.stop()
	}
}

// Stop is Quit, and waits for the requests under way. When ctx ends first they
// are given up and their messages given back, which does not count as an
// attempt.
func (p *Pushes) Stop(ctx context.Context) error {
	if p == nil {
		return nil
	}
	p.Quit()
	unfinished := int64(0)
	for _, w := range p.all {
		select {
		case <-w.done:
			continue
		case <-ctx.Done():
		}
		unfinished += w.active.Load()
		w.kill()
	}
	for _, w := range p.all {
		<-w.done
		w.kill()
	}
	if unfinished > 0 {
		return fmt.Errorf("%d messages were given back while the application was working on them: %w", unfinished, ctx.Err())
	}
	return nil
}

// run delivers while the application is healthy, until quit.
func (w *pusher) run() {
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
		if !w.healthy() {
			_ = w.m.leaveQueue(member)
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

func (w *pusher) healthy() bool { return w.o.Gate == nil || w.o.Gate.Healthy() }

// changed is closed when the application is healthy no more, or again.
func (w *pusher) changed() <-chan struct{} {
	if w.o.Gate == nil {
		return nil
	}
	return w.o.Gate.Changed()
}

// await returns when the application is healthy, or is not, or when ctx ends.
func (w *pusher) await(ctx context.Context, healthy bool) {
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
func (w *pusher) session(member broker.Member) {
	w.log.Info("delivering messages to the application", "url", w.p.URL)
	ctx, end := context.WithCancel(w.quit)
	defer end()
	if w.o.Gate != nil {
		go func() {
			defer end()
			w.await(ctx, false)
		}()
	}
	defer func() { _ = w.m.leaveQueue(member) }()
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
func (w *pusher) drain(member broker.Member) {
	draining, cancel := context.WithTimeout(context.Background(), w.m.o.Timeout)
	defer cancel()
	if err := member.Drain(draining); err != nil {
		w.log.Warn("messages could not be given back: they come again when their time is over", "error", err)
	}
}
