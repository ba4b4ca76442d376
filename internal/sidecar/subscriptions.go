package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// those whose time has come.
func (s *sidecar) deliverMessages() error {
	s.pushes = &pushes{start: s.startPush, log: s.log, wanted: make(chan wanted, 1), running: map[pushTo]*messaging.Pushes{}}
	if err := s.pushes.change(context.Background(), pushesOf(&s.cfg)); err != nil {
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

func (s *sidecar) startPush(to pushTo) (*messaging.Pushes, error) {
	started, err := s.messaging.StartPush([]messaging.Push{to.Push}, func(messaging.Push) messaging.PushOptions {
		var o messaging.PushOptions
		if to.ofApp {
			o.Gate = s.healthy
		}
		if to.probed {
			o.Probe = s.apps.probeMain
		}
		return o
	})
	if err != nil {
		return started, fmt.Errorf("--subscribe: %s", messaging.Unsupported(err))
	}
	return started, nil
}

// wanted is what is to be posted from now on, and how long requests under way
// may take that are wanted no more.
type wanted struct {
	pushes   []pushTo
	patience time.Duration
}

// pushes are the queues whose messages are posted at present.
type pushes struct {
	start    func(pushTo) (*messaging.Pushes, error)
	log      *slog.Logger
	wanted   chan wanted // the latest
	changing task        // follows it

	mu      sync.Mutex
	closed  bool // nothing is started any more
	running map[pushTo]*messaging.Pushes
}

// want has follow change what is posted.
func (p *pushes) want(w wanted) {
	select {
	case <-p.wanted: // it was not begun
	default:
	}
	p.wanted <- w // nobody else sends
}

// follow changes what is posted, whenever that is wanted, until ctx ends.
func (p *pushes) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-p.wanted:
			// An end of ctx is the sidecar's: what is under way has its own time then.
			patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.patience)
			if err := p.change(patience, w.pushes); err != nil {
				p.log.Error("messages of a queue are not delivered", "error", err)
			}
			cancel()
		}
	}
}

// change goes on with what stays, ends what is gone, and begins what is new when
// nothing is under way any more of what it may take the place of. Messages that
// nobody takes in the meantime wait in their queues.
func (p *pushes) change(ctx context.Context, want []pushTo) error {
	for to, old := range p.quit(want) {
		if err := old.Stop(ctx); err != nil {
			p.log.Warn("a subscription was changed", "topic", to.Topic, "queue", to.Queue, "error", err)
		}
		p.mu.Lock()
		delete(p.running, to)
		p.mu.Unlock()
	}
	var errs []error
	for _, to := range want {
		errs = append(errs, p.begin(to))
	}
	return errors.Join(errs...)
}

// quit takes no further messages for what is not among want, and returns that.
func (p *pushes) quit(want []pushTo) map[pushTo]*messaging.Pushes {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := map[pushTo]*messaging.Pushes{}
	for to, old := range p.running {
		if !slices.Contains(want, to) {
			old.Quit()
			gone[to] = old
		}
	}
	return gone
}

// begin posts the messages of a queue, unless it does so already.
func (p *pushes) begin(to pushTo) error {
	p.mu.Lock()
	_, runs := p.running[to]
	closed := p.closed
	p.mu.Unlock()
	if runs || closed {
		return nil
	}
	started, err := p.start(to)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
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
