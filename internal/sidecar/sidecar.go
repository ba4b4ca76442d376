// Package sidecar puts the sidecar together and takes it apart again: it is
// the only package that knows all the others, and the order in which they
// live and die.
package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/accesslog"
	"github.com/micro/sidecar/internal/api"
	"github.com/micro/sidecar/internal/balance"
	"github.com/micro/sidecar/internal/certs"
	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/monitor"
	"github.com/micro/sidecar/internal/proxy"
	"github.com/micro/sidecar/internal/rpc"
	"github.com/micro/sidecar/internal/sdnotify"
	"github.com/micro/sidecar/internal/server"
	"github.com/micro/sidecar/internal/stats"
	"github.com/micro/sidecar/internal/streams"
	"github.com/micro/sidecar/internal/transport"
	"github.com/micro/sidecar/web"
)

// Run runs a sidecar until ctx ends, its child does, or something breaks that
// it cannot live without. Bound listeners come first, so that a port in use is
// told at once; then engines, discovery, the real answers, and last the
// applications. They are stopped the other way round, within cfg.ShutdownGrace.
func Run(ctx context.Context, cfg Config, d Drivers, log *slog.Logger) error {
	s := &sidecar{cfg: cfg, log: log, stats: stats.New(), healthy: &health.State{}, drivers: d}
	if err := s.listen(ctx, d.Middleware); err != nil {
		return errors.Join(err, s.stop(ctx)) // nothing was asked yet
	}
	err := s.start(ctx, d)
	if err == nil {
		err = s.wait(ctx)
	}
	if ctx.Err() != nil { // told to stop, be it half-way up
		err = nil
	}
	s.signal = signalOf(ctx)
	grace, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownGrace)
	defer cancel()
	log.Info("stopping", "grace", s.cfg.ShutdownGrace)
	s.tell(sdnotify.Stopping, sdnotify.Extend(s.cfg.ShutdownGrace+stopMargin))
	err = errors.Join(err, s.stop(grace))
	log.Info("stopped")
	return err
}

// stopMargin is what the end of the process may take beyond the grace.
const stopMargin = 5 * time.Second

// sidecar is one that runs.
type sidecar struct {
	cfg     Config
	drivers Drivers
	log     *slog.Logger
	stats   *stats.Stats
	signal  os.Signal // that began the stop

	// healthy tells how the application of the flags is.
	healthy *health.State

	// What follows is nil until start has come that far.
	server    *server.Server
	engines   *Connection
	discovery *discovery.Discovery
	transport *transport.Client
	messaging *messaging.Messaging
	api       *api.API
	apps      *applications
	limit     *balance.Limit // nil: nothing bounds the requests under way
	pushes    *pushes

	monitor   *monitor.Monitor
	admin     admin
	accessLog *accesslog.Log
	awaited   awaited // while it starts

	discovering, consulWatch, readiness, monitoring, tokens, delayed, certificates task
	acme                                                                           *certs.ACME // nil without

	// calls and watches do not end by themselves; they outlive a reload.
	calls, watches streams.Set
}

// start brings up everything behind the listeners; what it began is stopped by
// stop, also when it fails.
func (s *sidecar) start(ctx context.Context, d Drivers) error {
	if err := s.connect(ctx, d); err != nil {
		return err
	}
	s.discover()
	if err := s.assemble(); err != nil {
		return err
	}
	s.server.Switch(s.api)
	s.admin.own.Store(s.api)
	s.log.Info("serving", "handler", s.cfg.Handler, "namespace", s.cfg.Namespace)
	s.readiness.begin(s.tellReadiness)
	s.monitoring.begin(s.monitor.Run)
	if tokens := s.cfg.Tokens; tokens != nil {
		s.tokens.begin(func(ctx context.Context) { tokens.Watch(ctx, s.log) })
	}
	if s.engines.Defaulted {
		s.consulWatch.begin(func(ctx context.Context) { s.watchForConsul(ctx, d) })
	}
	if err := s.deliverMessages(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // too late to start anything
	}
	if err := s.startChildren(); err != nil {
		return err
	}
	s.apps.apply(s.cfg.applications())
	return nil
}

// stop takes everything down in the order that loses nothing: the applications
// are deregistered while they still serve; a child has the sidecar until it
// ends; requests in flight have discovery and engines until they end.
func (s *sidecar) stop(ctx context.Context) error {
	return stopAll(ctx, s.log, []part{
		{"messages to the application", s.quitPushes},
		{"consul watch", s.consulWatch.stop},
		{"readiness", s.readiness.stop},
		{"token file", s.tokens.stop},
		{"applications", s.apps.stop},
		{"drain delay", s.drainDelay},
		{"deliveries", s.stopPushes},
		{"children", s.stopChildren},
		{"listeners", s.drain},
		{"monitoring", s.monitoring.stop},
		{"delayed messages", s.delayed.stop},
		{"certificates", s.stopCertificates},
		{"discovery", s.stopDiscovery},
		{"engines", s.disconnect},
		{"admin listener", s.admin.stop},
		{"access log", s.closeAccessLog},
	})
}

// listen binds the listeners and answers that the sidecar is starting. What it
// began is stopped by stop, also when it fails.
func (s *sidecar) listen(ctx context.Context, middleware []func(http.Handler) http.Handler) error {
	observe, err := s.openAccessLog()
	if err != nil {
		return err
	}
	s.prepareACME()
	srv, err := server.Bind(ctx, server.Options{Addresses: s.cfg.Addresses, MaxConnections: s.cfg.MaxConnections, TLS: s.cfg.TLS, Middleware: middleware, Count: s.stats.Count, Observe: observe, Log: s.log})
	if err != nil {
		return err
	}
	s.server = srv
	addresses := strings.Join(srv.Addresses(), " ")
	switch {
	case srv.Loopback():
		s.log.Info("listening on loopback only; --address opens the sidecar to others", "address", addresses)
	case s.cfg.TLS != nil && s.cfg.TLS.ClientAuth == tls.RequireAndVerifyClientCert:
		s.log.Info("listening beyond loopback: clients with a certificate can use the sidecar", "address", addresses)
	case s.cfg.Tokens != nil:
		s.log.Info("listening beyond loopback: clients with a token can use the sidecar", "address", addresses)
	default:
		s.log.Warn("listening beyond loopback: whoever can reach this address can use the sidecar", "address", addresses)
	}
	srv.Start(starting{&s.awaited})
	if err := s.keepCertificates(ctx); err != nil {
		return err
	}
	if s.cfg.Observe.AdminAddress != "" {
		s.admin.awaited = &s.awaited
		if err := s.admin.listen(ctx, s.cfg.Observe.AdminAddress, s.log); err != nil {
			return err
		}
	}
	return nil
}

// connect opens the engines. One that is not there yet is waited for.
func (s *sidecar) connect(ctx context.Context, d Drivers) error {
	failing := false
	e := s.cfg.Engines
	e.Opening = func(what string) {
		if !failing { // what is wrong says more, and names it, too
			s.awaited.set(what + " has not answered yet")
		}
	}
	for {
		engines, err := Connect(ctx, e, d, s.log)
		if err == nil {
			s.engines = engines
			s.log.Info("engines chosen", "registry", engines.RegistryName, "because", engines.Why, "broker", engines.BrokerName)
			return nil
		}
		if ctx.Err() != nil || !timedOut(err) {
			return err
		}
		failing = true
		s.awaited.set(err.Error())
		s.log.Warn("an engine does not answer; trying on", "error", err)
	}
}

// timedOut tells an engine that does not answer, be it a call's deadline or a
// connection's.
func timedOut(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

func (s *sidecar) disconnect(ctx context.Context) error {
	if s.engines == nil {
		return nil
	}
	return s.engines.Close(ctx)
}

func (s *sidecar) discover() {
	s.discovery = discovery.New(s.engines.Registry, s.log)
	s.discovering.begin(s.discovery.Run)
}

func (s *sidecar) stopDiscovery(ctx context.Context) error {
	if s.discovery != nil {
		s.discovery.Close()
	}
	return s.discovering.stop(ctx)
}

// assemble makes what lives as long as the sidecar, and the first routes.
func (s *sidecar) assemble() error {
	s.transport = transport.New(transport.Options{PoolSize: s.cfg.PoolSize, DialTimeout: s.cfg.ConnectTimeout, MaxBody: s.cfg.MaxBodySize})
	s.apps = &applications{registryName: s.engines.RegistryName, discovery: s.discovery, main: s.healthy, log: s.log}
	if s.cfg.MaxConcurrency > 0 {
		s.limit = balance.NewLimit(s.cfg.MaxConcurrency)
	}
	s.monitor = s.newMonitor()
	s.messaging = messaging.New(messaging.Options{
		Topics:      s.monitor.Topics,
		Broker:      s.engines.Broker,
		MaxBodySize: s.cfg.MaxBodySize,
		Log:         s.log,
		Fail:        api.Fail,
		Name:        s.engines.BrokerName,
		NotDurable:  s.notDurable(),
		// The guard has looked at the origin already.
		OriginPatterns: []string{"*"},
	})
	s.monitor.Messages = s.messages
	s.pushes = newPushes(s.startPush, pushesOf(&s.cfg), s.log)
	var err error
	s.api, err = s.routes(&s.cfg)
	return err
}

// routes makes the handlers as cfg wants them. They share what assemble made,
// so that others can take their place while requests are under way.
func (s *sidecar) routes(cfg *Config) (*api.API, error) {
	balancer, err := s.balancer(cfg)
	if err != nil {
		return nil, err
	}
	forward := &proxy.Handler{
		Namespace: cfg.Namespace,
		Resolver:  s.discovery,
		Balancer:  balancer,
		Transport: s.transport,
		Timeout:   cfg.RequestTimeout,
		Status:    statusOf,
	}
	routes := &api.API{
		Discovery: s.discovery,
		RPC: &rpc.Handler{
			Namespace: cfg.Namespace,
			Caller: &rpc.Caller{
				Resolver:   s.discovery,
				Balancer:   balancer,
				Transport:  s.transport,
				Timeout:    cfg.RequestTimeout,
				Status:     statusOf,
				AnyAddress: cfg.RPCAnyAddress,
			},
			Proxy:   forward,
			MaxBody: cfg.MaxBodySize,
			Explain: api.Explain,
			Streams: &s.calls,
		},
		Proxy:          forward,
		Messaging:      s.messaging,
		Health:         s.apps.probe,
		Ready:          s.ready,
		Monitor:        s.monitor,
		Metrics:        s.monitor.Metrics(),
		ProxyByDefault: cfg.Handler == "proxy",
		MaxBodySize:    cfg.MaxBodySize,
		Guard:          api.Guard{Origins: cfg.CORS, Hosts: cfg.AllowedHosts, Proxied: cfg.GuardProxy},
		Tokens:         cfg.Tokens,
		Watches:        &s.watches,
	}
	if cfg.EnableStats {
		routes.Page = web.Page()
	}
	return routes, nil
}

// statusOf is the status that a client sees of an error.
func statusOf(err error) int { return api.Explain(err).Code }

// drain closes the listeners and lets what is under way end: requests first,
// then WebSocket subscribers with 1001, tunnels at the deadline.
func (s *sidecar) drain(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	if s.api == nil { // nothing but "starting" was ever answered
		return errors.Join(s.server.Drain(ctx), s.server.Finish(ctx))
	}
	// What does not end leaves time for the engines, and requests that do not
	// end leave some for the farewells to subscribers.
	ctx, cancel := share(ctx, 9, 10)
	defer cancel()
	requests, cancel := share(ctx, 4, 5)
	defer cancel()
	var streams sync.WaitGroup
	var stopped, called error
	streams.Go(func() { stopped = s.api.Stop(ctx) })
	streams.Go(func() { called = s.api.RPC.Stop(requests) })
	drained := s.server.Drain(requests)
	streams.Wait()
	closed := s.messaging.Shutdown(ctx)
	finished := s.server.Finish(ctx)
	s.transport.Close()
	return errors.Join(drained, stopped, called, closed, finished)
}

// share returns a context that ends after num/den of what is left of ctx.
func share(ctx context.Context, num, den time.Duration) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)*num/den)
}
