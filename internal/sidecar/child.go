package sidecar

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/child"
)

// Signal is the cause of a context that a signal ended: it is passed on to the
// application that runs as a child.
type Signal struct{ Signal os.Signal }

// Error names the signal.
func (s *Signal) Error() string { return s.Signal.String() }

// startChildren starts the applications that run as children.
func (s *sidecar) startChildren() error {
	return s.cfg.Control.Children.Start(func(p *child.Process) {
		s.log.Info("application started", "pid", p.Pid(), "command", p.Name())
	}, s.childEnv()...)
}

// childEnv tells the application where the sidecar is: as a URL, and in the
// form that the commands of micro take.
func (s *sidecar) childEnv() []string {
	for _, address := range s.server.Addresses() {
		if strings.HasPrefix(address, "unix:") {
			continue
		}
		address = reachable(address)
		scheme, at := "http://", address
		if s.cfg.TLS != nil {
			scheme, at = "https://", "https://"+address
		}
		return []string{"MICRO_SIDECAR_URL=" + scheme + address, "MICRO_PROXY_ADDRESS=" + at}
	}
	return []string{"MICRO_PROXY_ADDRESS=" + s.server.Addresses()[0]}
}

// reachable makes an address to connect to of one to listen on, which may mean
// all interfaces.
func reachable(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsUnspecified() {
		return address
	}
	_, port, _ := net.SplitHostPort(address) // it was parsed
	if at.Addr().Is4() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return net.JoinHostPort("::1", port)
}

// drainDelay gives callers elsewhere, who go to the applications directly, time
// to learn that they are no longer registered. Those that never were have no
// callers, and children that have ended serve nobody any more.
func (s *sidecar) drainDelay(ctx context.Context) error {
	if s.apps == nil {
		return nil
	}
	timer := time.NewTimer(s.cfg.DrainDelay)
	defer timer.Stop()
	for _, app := range s.apps.list() {
		if !app.announced.Load() {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			return nil
		case <-app.ended():
		}
	}
	return nil
}

// ended is closed when the application has ended; it is nil when that is not
// known, because it is no child.
func (a *application) ended() <-chan struct{} {
	if a.spec.Child == nil {
		return nil
	}
	return a.spec.Child.Done()
}

// stopChildren ends the applications with the signal that ended us. Until then
// the listeners are open, and what they ask for is answered. It leaves a fifth
// of the time that is left for what comes after.
func (s *sidecar) stopChildren(ctx context.Context) error {
	ctx, cancel := share(ctx, 4, 5)
	defer cancel()
	return s.cfg.Control.Children.Stop(ctx, s.signal)
}

// signalOf is the signal that ended ctx, SIGTERM when it was none.
func signalOf(ctx context.Context) os.Signal {
	if s, ok := errors.AsType[*Signal](context.Cause(ctx)); ok {
		return s.Signal
	}
	return syscall.SIGTERM
}
