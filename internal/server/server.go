// Package server owns the listeners: it binds them, brings requests to the
// handlers, on a fast path of its own or through net/http, and drains them at
// the end. It knows nothing of
// what the handlers do.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/http1"
	"github.com/micro/sidecar/internal/sleep"
)

const (
	// headTimeout bounds the reading of a request's head, idleTimeout the wait
	// for the next request on a connection.
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	// cutTime is how long handlers may take to notice that they were cut off.
	cutTime = time.Second
)

// Options say where and how a server listens.
type Options struct {
	// Addresses are "host:port" or "unix:/path".
	Addresses []string
	// MaxConnections bounds the clients' connections, on all listeners together;
	// those beyond it wait. 0 means that the system does.
	MaxConnections int
	// TLS says which certificates are shown and which clients are let in, on
	// all TCP listeners; nil means no TLS. Versions and protocols are the
	// server's. Unix sockets are without: what TLS is for, the system does.
	TLS *tls.Config
	// Middleware stands between the listeners and the handlers, the first one
	// outermost. With any, all requests take the net/http way.
	Middleware []func(http.Handler) http.Handler
	// Count is told the status of every answer.
	Count func(status int)
	// Observe is told more about every answer; nil when nobody wants to know.
	Observe func(*Answered)
	Log     *slog.Logger
}

// Server serves one set of routes on its listeners. Bind it first; it answers
// from [Server.Start] on.
type Server struct {
	options   Options
	listeners []net.Listener
	entrance  *entrance
	fast      *fast
	http      *http.Server
	base      context.Context // of all requests
	cut       context.CancelFunc
	serving   sync.WaitGroup
	failed    chan error
}

// Start serves routes.
func (s *Server) Start(routes Routes) {
	s.entrance = &entrance{count: s.options.Count, observe: s.options.Observe, log: s.options.Log}
	s.entrance.wrap(s.options.Middleware)
	s.Switch(routes)
	s.base, s.cut = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler:           s.entrance,
		ReadHeaderTimeout: headTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    http1.MaxHead,
		BaseContext:       func(net.Listener) context.Context { return s.base },
		ConnContext:       connContext,
		Protocols:         protocols(),
		HTTP2:             http2Config(),
		ErrorLog:          slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
	}
	room := newRoom(s.options.MaxConnections)
	s.fast = &fast{
		entrance: s.entrance, slow: newHandover(s.listeners[0].Addr(), room, s.refuse), base: s.base,
		room: room, conns: map[*fastConn]bool{},
	}
	s.serving.Go(func() { _ = s.http.Serve(s.fast.slow) }) // ends when it is shut down
	for _, l := range s.listeners {
		if s.options.TLS != nil && l.Addr().Network() != "unix" {
			l = tls.NewListener(l, serverTLS(s.options.TLS))
		}
		s.serving.Go(func() {
			if err := s.fast.accept(l); !errors.Is(err, net.ErrClosed) {
				s.failed <- fmt.Errorf("listener %s: %w", l.Addr(), err)
			}
		})
	}
}

// refuse answers a request that cannot be read on a connection of net/http's.
func (s *Server) refuse(conn net.Conn, err error) {
	c := newFastConn(s.fast, conn, false) // it has no request to tell it of
	defer c.cancel()
	c.refuse(err)
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
	for s.entrance.requests.Load() > 0 && sleep.For(ctx, drainPoll) == nil {
		// They have no sign of their end but their number.
	}
	return errors.Join(errs...)
}

// drainPoll is how often Drain looks whether requests are left.
const drainPoll = 5 * time.Millisecond

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
