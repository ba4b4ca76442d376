package sidecar

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/discovery"
	"github.com/micro/sidecar/internal/health"
	"github.com/micro/sidecar/registry"
)

// withdrawTimeout bounds what taking the application out of the registry may
// take: after it, the registration's TTL does the job.
const withdrawTimeout = 3 * time.Second

// application keeps the application in the registry while it is healthy.
type application struct {
	service   registry.Service
	ttl       time.Duration
	interval  time.Duration
	prober    *health.Prober // nil without a health check
	state     *health.State  // told how it is
	discovery *discovery.Discovery
	log       *slog.Logger

	announcing sync.WaitGroup
	silence    context.CancelFunc // ends the announcement under way
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

// run registers the application, at once or as its health has it, until ctx
// ends; then it is taken out of the registry.
func (a *application) run(ctx context.Context) {
	if a.prober == nil {
		a.state.Set(true)
		a.announce(ctx)
		<-ctx.Done()
	} else {
		a.prober.Run(ctx, func(healthy bool, r health.Result) {
			a.state.Set(healthy)
			if healthy {
				a.log.Info("application is healthy", "service", a.service.Name)
				a.announce(ctx)
				return
			}
			if a.silence == nil {
				a.log.Info("application is not healthy yet; it is registered after its first good probe", "service", a.service.Name, "error", r.Err)
				return
			}
			a.log.Warn("application is not healthy; taking it out of the registry", "service", a.service.Name, "error", r.Err)
			a.withdraw()
		})
	}
	a.withdraw()
}

// announce begins to register and renew.
func (a *application) announce(ctx context.Context) {
	ctx, a.silence = context.WithCancel(ctx)
	a.announcing.Go(func() { a.discovery.Announce(ctx, a.service, a.ttl, a.interval) })
}

// withdraw ends the announcement, when there is one, and deregisters. The
// context it was run with may have ended already.
func (a *application) withdraw() {
	if a.silence == nil {
		return
	}
	a.silence()
	a.silence = nil
	a.announcing.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), withdrawTimeout)
	defer cancel()
	if err := a.discovery.Withdraw(ctx, a.service); err != nil && !errors.Is(err, registry.ErrReadOnly) {
		a.log.Warn("application could not be deregistered; it will be gone when its registration expires",
			"service", a.service.Name, "ttl", a.ttl, "error", err)
	}
}

// warnLoopback tells about a registration that is of no use elsewhere.
func warnLoopback(a App, registryName string, log *slog.Logger) {
	ip := net.ParseIP(a.Host)
	registryName, _, _ = strings.Cut(registryName, ",")
	if registryName != "embedded" && (a.Host == "localhost" || strings.HasPrefix(a.Host, registry.UnixPrefix) || ip != nil && ip.IsLoopback()) {
		log.Warn("the application is registered under a loopback address in a registry that other machines share; set --server_advertise",
			"address", a.Host, "registry", registryName)
	}
}
