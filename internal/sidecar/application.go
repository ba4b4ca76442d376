package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/registry"
)

// withdrawTimeout bounds what taking the application out of the registry may
// take: after it, the registration's TTL does the job.
const withdrawTimeout = 3 * time.Second

// application keeps one application in the registry while it is healthy.
type application struct {
	Service   registry.Service
	spec      Application
	prober    *health.Prober // nil without a health check
	state     *health.State
	discovery *discovery.Discovery
	log       *slog.Logger

	task       task
	announcing sync.WaitGroup
	silence    context.CancelFunc // ends the announcement under way
	announced  atomic.Bool        // at some time, so that callers may know it
}

// newService is the registration that the configuration describes.
func newService(a App) registry.Service {
	id := a.ID
	if id == "" {
		id = a.Name + "-" + strings.ToLower(rand.Text())
	}
	return registry.Service{
		Name:    a.Name,
		Version: a.Version,
		Nodes:   []registry.Node{{ID: id, Address: a.Host, Port: a.Port, Metadata: a.Metadata}},
	}
}

// Healthy reports whether the application is well, as far as is known.
func (a *application) Healthy() bool { return a.state.Healthy() }

// Recent returns what its last probes saw, the oldest first.
func (a *application) Recent() []health.Sample {
	if a.prober == nil {
		return nil
	}
	return a.prober.Recent()
}

// run registers the application, at once or as its health has it, until ctx
// ends; then it is taken out of the registry.
func (a *application) run(ctx context.Context) {
	if a.prober == nil {
		a.announce(ctx)
		<-ctx.Done()
	} else {
		a.probe(ctx)
	}
	a.withdraw()
}

// probe follows the application's health until ctx ends.
func (a *application) probe(ctx context.Context) {
	log := a.log.With("service", a.Service.Name)
	been, told := false, false
	a.prober.Run(ctx, func(healthy bool, r health.Result) {
		switch {
		case healthy:
			log.Info("application is healthy")
			been = true
			a.announce(ctx)
		case been:
			log.Warn("application is not healthy; taking it out of the registry", "error", r.Err)
			a.withdraw()
		case told:
			log.Warn("application is still not healthy", "after", a.prober.Check().StartupGrace, "error", r.Err)
		default:
			log.Info("application is not healthy yet; it is registered after its first good probe", "error", r.Err)
			told = true
		}
	})
}

// announce begins to register and renew.
func (a *application) announce(ctx context.Context) {
	a.announced.Store(true)
	ctx, a.silence = context.WithCancel(ctx)
	a.announcing.Go(func() { a.discovery.Announce(ctx, a.Service, a.spec.RegisterTTL, a.spec.RegisterInterval) })
	a.state.Set(true)
}

// withdraw ends the announcement, when there is one, and deregisters. The
// context it was run with may have ended already.
func (a *application) withdraw() {
	a.state.Set(false)
	if a.silence == nil {
		return
	}
	a.silence()
	a.silence = nil
	a.announcing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTimeout)
	defer cancel()
	if err := a.discovery.Withdraw(ctx, a.Service); err != nil && !errors.Is(err, registry.ErrReadOnly) {
		a.log.Warn("application could not be deregistered; it will be gone when its registration expires",
			"service", a.Service.Name, "ttl", a.spec.RegisterTTL, "error", err)
	}
}

// warnLoopback tells about a registration that is of no use elsewhere.
func warnLoopback(a App, registryName string, log *slog.Logger) {
	ip := net.ParseIP(a.Host)
	registryName, _, _ = strings.Cut(registryName, ",")
	if registryName != "embedded" && registryName != "static" && registryName != "kubernetes" && (a.Host == "localhost" || strings.HasPrefix(a.Host, registry.UnixPrefix) || ip != nil && ip.IsLoopback()) {
		log.Warn("the application is registered under a loopback address in a registry that other machines share; set --server_advertise",
			"address", a.Host, "registry", registryName)
	}
}
