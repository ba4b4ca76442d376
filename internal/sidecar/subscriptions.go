package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/registry"
)

// Subscription is a durable queue whose messages are posted to the application
// or to some other program of this machine.
type Subscription struct {
	messaging.Push
	// Path is where the application of the flags takes messages; then URL and
	// Socket are made of its address.
	Path string
}

// temporaryData is why a sidecar keeps no messages in a temporary directory.
const temporaryData = "the data directory is a temporary one, which ends with this process; name one that lasts with --data_dir"

// notDurable says why durable messaging is refused although the broker can do
// it, or "".
func (s *sidecar) notDurable() string {
	if s.cfg.Engines.Temporary && s.engines.BrokerName == "embedded" {
		return temporaryData
	}
	return ""
}

// deliverMessages begins to post messages to the application, and to publish
// those whose time has come. The queues are declared when it returns, unless
// the engine is away.
func (s *sidecar) deliverMessages(ctx context.Context) error {
	if err := s.pushes.begin(ctx, s.pushes.wanted); err != nil {
		return err
	}
	s.pushes.changing.begin(s.pushes.follow)
	s.delayed.begin(s.messaging.RunDelayed)
	return nil
}

// pushTo is a queue whose messages are posted, and to whom.
type pushTo struct {
	messaging.Push
	ofApp  bool // to the application of the flags
	probed bool // which has a health check
}

// pushesOf returns what cfg wants to be posted.
func pushesOf(cfg *Config) []pushTo {
	var all []pushTo
	for _, sub := range cfg.Subscriptions {
		to := pushTo{Push: sub.Push}
		if sub.Path != "" {
			to.ofApp, to.probed = true, cfg.Healthcheck.URL != ""
			to.URL, to.Socket = "http://"+cfg.App.Address+sub.Path, ""
			if socket, ok := strings.CutPrefix(cfg.App.Address, registry.UnixPrefix); ok {
				to.URL, to.Socket = "http://localhost"+sub.Path, socket
			}
		}
		all = append(all, to)
	}
	return all
}

func (s *sidecar) startPush(ctx context.Context, to pushTo) (*messaging.Pusher, error) {
	o := messaging.PushOptions{Declared: func() { s.pushes.declare(to.queue()) }}
	if to.ofApp {
		o.Gate = s.healthy
	}
	if to.probed {
		o.Probe = s.apps.probeMain
	}
	started, err := s.messaging.StartPush(ctx, to.Push, o)
	if err != nil {
		return nil, fmt.Errorf("--subscribe: %s", messaging.Unsupported(err))
	}
	return started, nil
}

// queueName names a durable queue.
type queueName struct{ topic, queue string }

func (p pushTo) queue() queueName { return queueName{p.Topic, p.Queue} }

// pushes are the queues whose messages are posted.
type pushes struct {
	start    func(context.Context, pushTo) (*messaging.Pusher, error)
	log      *slog.Logger
	changes  chan pushChange   // the latest
	changing task          // makes them
	news     chan struct{} // a token: a queue is declared

	mu       sync.Mutex
	closed   bool // nothing is started any more
	wanted   []pushTo
	declared map[queueName]bool
	running  map[pushTo]*messaging.Pusher
}

// pushChange is what is to be posted from now on.
type pushChange struct {
	want     []pushTo
	patience time.Duration // with requests under way that are wanted no more
	begun    chan struct{} // closed when new queues are declared, or the engine is away
}

func newPushes(start func(context.Context, pushTo) (*messaging.Pusher, error), want []pushTo, log *slog.Logger) *pushes {
	return &pushes{
		start: start, log: log, wanted: want, changes: make(chan pushChange, 1), news: make(chan struct{}, 1),
		declared: map[queueName]bool{}, running: map[pushTo]*messaging.Pusher{},
	}
}

// declare notes that a queue is there.
func (p *pushes) declare(q queueName) {
	p.mu.Lock()
	p.declared[q] = true
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// ready names a queue that is not there yet: what is published now is not kept
// for it.
func (p *pushes) ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, to := range p.wanted {
		if !p.declared[to.queue()] {
			return fmt.Errorf("the durable queue %s of topic %s is not declared yet", to.Queue, to.Topic)
		}
	}
	return nil
}

// want changes what is posted. It does not wait for that: what it returns is
// closed when new queues are declared, or the engine is away.
func (p *pushes) want(want []pushTo, patience time.Duration) <-chan struct{} {
	p.mu.Lock()
	p.wanted = want
	maps.DeleteFunc(p.declared, func(q queueName, _ bool) bool {
		return !slices.ContainsFunc(want, func(to pushTo) bool { return to.queue() == q })
	})
	p.mu.Unlock()
	select {
	case <-p.changes: // it was not begun
	default:
	}
	begun := make(chan struct{})
	p.changes <- pushChange{want, patience, begun} // nobody else sends
	return begun
}

// follow changes what is posted, whenever that is wanted, until ctx ends.
func (p *pushes) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-p.changes:
			p.change(ctx, c)
		}
	}
}

// change goes on with what stays, ends what is gone, and begins what is new: at
// once, so that it misses nothing, or, in the place of what is gone, when nothing
// of that is under way any more. Its messages wait in the queue meanwhile.
func (p *pushes) change(ctx context.Context, c pushChange) {
	gone := p.quit(c.want)
	var anew, instead []pushTo
	for _, to := range c.want {
		if slices.ContainsFunc(slices.Collect(maps.Keys(gone)), func(old pushTo) bool { return old.queue() == to.queue() }) {
			instead = append(instead, to)
		} else {
			anew = append(anew, to)
		}
	}
	err := p.begin(ctx, anew)
	close(c.begun)
	// An end of ctx is the sidecar's: what is under way has its own time then.
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.patience)
	defer cancel()
	for to, old := range gone {
		if err := old.Stop(patience); err != nil {
			p.log.Warn("a subscription was changed", "topic", to.Topic, "queue", to.Queue, "error", err)
		}
		p.mu.Lock()
		delete(p.running, to)
		p.mu.Unlock()
	}
	if err := errors.Join(err, p.begin(ctx, instead)); err != nil {
		p.log.Error("messages of a queue are not delivered", "error", err)
	}
}

// quit takes no further messages for what is not among want, and returns that.
func (p *pushes) quit(want []pushTo) map[pushTo]*messaging.Pusher {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := map[pushTo]*messaging.Pusher{}
	for to, old := range p.running {
		if !slices.Contains(want, to) {
			old.Quit()
			gone[to] = old
		}
	}
	return gone
}

// begin posts the messages of queues, side by side, but of those where it does
// so already.
func (p *pushes) begin(ctx context.Context, all []pushTo) error {
	var starting sync.WaitGroup
	errs := make([]error, len(all))
	for i, to := range all {
		starting.Go(func() { errs[i] = p.beginOne(ctx, to) })
	}
	starting.Wait()
	return errors.Join(errs...)
}

func (p *pushes) beginOne(ctx context.Context, to pushTo) error {
	p.mu.Lock()
	_, runs := p.running[to]
	closed := p.closed
	p.mu.Unlock()
	if runs || closed {
		return nil
	}
	started, err := p.start(ctx, to)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil { // the engine cannot do it at all: nothing comes that is to be waited for
		p.wanted = slices.DeleteFunc(slices.Clone(p.wanted), func(other pushTo) bool { return other == to })
		return err
	}
	p.running[to] = started
	if p.closed {
		started.Quit()
	}
	return nil
}

// quitPushes takes no further messages for the application.
func (s *sidecar) quitPushes(context.Context) error {
	if s.pushes == nil {
		return nil
	}
	s.pushes.mu.Lock()
	s.pushes.closed = true
	s.pushes.mu.Unlock()
	s.pushes.quit(nil)
	return nil
}

// stopPushes lets the application finish what it works on, but leaves time for
// what comes after.
func (s *sidecar) stopPushes(ctx context.Context) error {
	if s.pushes == nil {
		return nil
	}
	ctx, cancel := share(ctx, 1, 2)
	defer cancel()
	errs := []error{s.pushes.changing.stop(ctx)}
	for _, running := range s.pushes.quit(nil) {
		errs = append(errs, running.Stop(ctx))
	}
	return errors.Join(errs...)
}
