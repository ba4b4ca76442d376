package sidecar

import (
	"context"
	"fmt"
	"strings"

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
	var pushes []messaging.Push
	paths := map[string]bool{}
	for _, sub := range s.cfg.Subscriptions {
		p := sub.Push
		if sub.Path != "" {
			p.URL, p.Socket = "http://"+s.cfg.App.Address+sub.Path, ""
			if socket, ok := strings.CutPrefix(s.cfg.App.Address, registry.UnixPrefix); ok {
				p.URL, p.Socket = "http://localhost"+sub.Path, socket
			}
			paths[p.Topic+"\x00"+p.Queue] = true
		}
		pushes = append(pushes, p)
	}
	started, err := s.messaging.StartPush(pushes, func(p messaging.Push) messaging.PushOptions {
		if !paths[p.Topic+"\x00"+p.Queue] {
			return messaging.PushOptions{}
		}
		o := messaging.PushOptions{Gate: s.healthy}
		if s.cfg.Healthcheck.URL != "" {
			o.Probe = s.apps.probeMain
		}
		return o
	})
	s.pushes = started
	if err != nil {
		return fmt.Errorf("--subscribe: %s", messaging.Unsupported(err))
	}
	s.delayed.begin(s.messaging.RunDelayed)
	return nil
}

// quitPushes takes no further messages for the application.
func (s *sidecar) quitPushes(context.Context) error {
	s.pushes.Quit()
	return nil
}

// stopPushes lets the application finish what it works on, but leaves time for
// what comes after.
func (s *sidecar) stopPushes(ctx context.Context) error {
	ctx, cancel := share(ctx, 1, 2)
	defer cancel()
	return s.pushes.Stop(ctx)
}
