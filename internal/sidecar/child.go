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
)

// Signal is the cause of a context that a signal ended: it is passed on to the
// application that runs as a child.
type Signal struct{ Signal os.Signal }

// Error names the signal.
func (s *Signal) Error() string { return s.Signal.String() }

// startChild starts the application, when it runs as a child.
func (s *sidecar) startChild() error {
	child := s.cfg.Control.Child
	if child == nil {
		return nil
	}
	if err := child.Start(s.childEnv()...); err != nil {
		return err
	}
	s.log.Info("application started", "pid", child.Pid())
	return nil
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

// childEnded is closed when the application that runs as a child has ended; it
// is nil when there is none.
func (s *sidecar) childEnded() <-chan struct{} {
	if s.cfg.Control.Child == nil {
		return nil
	}
	return s.cfg.Control.Child.Done()
}

// drainDelay gives callers elsewhere, who go to the applications directly, time
// to learn that they are no longer registered. A child that has ended serves
// nobody any more.
func (s *sidecar) drainDelay(ctx context.Context) error {
	if s.apps == nil || len(s.apps.list()) == 0 {
		return nil
	}
	var ended <-chan struct{}
	if s.cfg.App.Name != "" && len(s.apps.list()) == 1 {
		ended = s.childEnded()
	}
	timer := time.NewTimer(s.cfg.DrainDelay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-ended:
	case <-timer.C:
	}
	return nil
}

// stopChild ends the application with the signal that ended us. Until then the
// listeners are open, and what it asks for is answered. It leaves a fifth of
// the time that is left for what comes after.
func (s *sidecar) stopChild(ctx context.Context) error {
	child := s.cfg.Control.Child
	if child == nil {
		return nil
	}
	ctx, cancel := share(ctx, 4, 5)
	defer cancel()
	return child.Stop(ctx, s.signal)
}

// signalOf is the signal that ended ctx, SIGTERM when it was none.
func signalOf(ctx context.Context) os.Signal {
	if s, ok := errors.AsType[*Signal](context.Cause(ctx)); ok {
		return s.Signal
	}
	return syscall.SIGTERM
}
