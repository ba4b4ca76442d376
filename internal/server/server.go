// Package server owns the listeners: it binds them, brings requests to the
// handlers, on a fast path of its own or through net/http, and drains them at
// the end. It knows nothing of
// what the handlers do.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/http1"
)

const (
	// headTimeout bounds the reading of a request's head, idleTimeout the wait
	// for the next request on a connection.
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	// cutTime is how long handlers may take to notice that they were cut off.
	cutTime = time.Second
)

// Server serves one set of routes on its listeners. Bind it first; it answers
// from [Server.Start] on.
type Server struct {
	listeners []net.Listener
	entrance  *entrance
	fast      *fast
	http      *http.Server
	base      context.Context // of all requests
	cut       context.CancelFunc
	serving   sync.WaitGroup
	failed    chan error
}

// Bind opens the listeners. The first address must be had; a further one may
// be missing, when the machine lacks its address family, or when its port is in
// use, which is warned about.
func Bind(ctx context.Context, addresses []string, log *slog.Logger) (*Server, error) {
	s := &Server{failed: make(chan error, len(addresses))}
	var config net.ListenConfig
	for i, address := range addresses {
		if i > 0 {
			address = samePort(address, s.listeners[0].Addr())
		}
		l, err := config.Listen(ctx, network(address), address)
		switch {
		case err == nil:
			s.listeners = append(s.listeners, l)
		case i > 0 && errors.Is(err, syscall.EADDRINUSE):
			log.Warn("another program answers at one of the addresses", "address", address, "error", err)
		case i > 0:
			log.Debug("address left out", "address", address, "error", err)
		case errors.Is(err, syscall.EADDRINUSE):
			return nil, fmt.Errorf("%s is in use by another program; choose another with --address", address)
		default:
			return nil, fmt.Errorf("listen on %s: %w", address, err)
		}
	}
	return s, nil
}

// network keeps an IPv4 address from opening IPv6 as well, as 0.0.0.0 would.
func network(address string) string {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Is4() {
		return "tcp4"
	}
	return "tcp"
}

// samePort replaces port 0 by the one the system gave to the first listener.
func samePort(address string, first net.Addr) string {
	host, port, err := net.SplitHostPort(address)
	if tcp, ok := first.(*net.TCPAddr); ok && err == nil && port == "0" {
		return net.JoinHostPort(host, fmt.Sprint(tcp.Port))
	}
	return address
}

// Addresses are what the listeners are bound to.
func (s *Server) Addresses() []string {
	out := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		out[i] = l.Addr().String()
	}
	return out
}

// Loopback reports whether all listeners are on loopback.
func (s *Server) Loopback() bool {
	for _, l := range s.listeners {
		if a, ok := l.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			return false
		}
	}
	return true
}

// Start serves routes; count is told the status of every answer.
func (s *Server) Start(routes Routes, count func(status int), log *slog.Logger) {
	s.entrance = &entrance{count: count, log: log}
	s.Switch(routes)
	s.base, s.cut = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.entrance,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    http1.MaxHead,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.fast = &fast{entrance: s.entrance, slow: newHandover(s.listeners[0].Addr()), base: s.base, conns: map[*fastConn]bool{}}
	s.serving.Go(func() { _ = s.http.Serve(s.fast.slow) }) // ends when it is shut down
	for _, l := range s.listeners {
		s.serving.Go(func() {
			if err := s.fast.accept(l); !errors.Is(err, net.ErrClosed) {
				s.failed <- fmt.Errorf("listener %s: %w", l.Addr(), err)
			}
		})
	}
}

// Switch replaces the routes; requests under way keep the old ones.
func (s *Server) Switch(routes Routes) { s.entrance.routes.Store(&routes) }

// Failed yields the error of a listener that broke.
func (s *Server) Failed() <-chan error { return s.failed }

// Drain closes the listeners and waits until ctx ends for the requests in
// flight; upgraded connections are left alone. What is still there then is for
// [Server.Finish].
func (s *Server) Drain(ctx context.Context) error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	s.fast.drain()
	if err := s.http.Shutdown(ctx); err != nil && ctx.Err() == nil {
		errs = append(errs, err)
	}
	s.serving.Wait()
	for s.entrance.requests.Load() > 0 && ctx.Err() == nil {
		pause(ctx, drainPoll)
	}
	return errors.Join(errs...)
}

// drainPoll is how often Drain looks whether requests are left.
const drainPoll = 5 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Finish waits until ctx ends for what is left, upgraded connections first of
// all, and then cuts it off. A request that was cut off is an error.
func (s *Server) Finish(ctx context.Context) error {
	done := make(chan struct{})
	go func() { s.entrance.active.Wait(); s.fast.running.Wait(); close(done) }()
	var err error
	select {
	case <-done:
	case <-ctx.Done():
		if n := s.entrance.requests.Load(); n > 0 {
			err = fmt.Errorf("requests cut off at the deadline: %d", n)
		}
	}
	s.cut()
	s.fast.cut()
	s.fast.slow.cut()
	err = errors.Join(err, s.http.Close())
	select {
	case <-done:
	case <-time.After(cutTime):
	}
	return err
}
