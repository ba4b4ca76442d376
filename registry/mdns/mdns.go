// Package mdns is the registry driver for multicast DNS, with the records of
// go-micro's mdns registry, so that either finds the other's services. It owns
// the sockets, the answers to questions for what is registered here, and a
// memory of what others have said, which the network fills and look-ups read.
// A registration lives as long as this process.
package mdns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/registry"
)

// firstAnswers is how long answers to the first question are collected. Who
// asks earlier waits for them, so that a command sees the network.
const firstAnswers = 500 * time.Millisecond

// Registry talks to a network. It is safe for concurrent use.
type Registry struct {
	*picture.Picture // Get, List and Watch
	domain           string
	names            []string // of the interfaces; nil are all
	log              *slog.Logger
	odd              *complain.Log
	sockets          []*sockets
	joined           atomic.Int64 // interfaces, of both families
	stop             context.CancelFunc
	tasks            sync.WaitGroup
	begun            chan struct{} // closed when the picture is known
	closing          sync.Once
	closeErr         error

	mu    sync.Mutex
	own   map[string]*registration // by domain name
	cache cache
	// left holds until when what was said of a node that is no longer registered
	// here is taken for an echo.
	left map[string]time.Time
	// answers were given since.
	answers int
	since   time.Time
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ registry.Pinger   = (*Registry)(nil)
	_ registry.Fleeting = (*Registry)(nil)
	_ io.Closer         = (*Registry)(nil)
)

type config struct {
	domain string
	names  []string
}

// Open listens on the network: mdns://DOMAIN, go-micro's "micro" when it or u
// is not given, with the parameter interface=NAME,… for some of the machine's
// interfaces in place of all. It does not wait.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	c, err := configure(u)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{
		Picture: picture.New(), domain: c.domain, names: c.names, log: log, odd: complain.New(log), stop: stop,
		begun: make(chan struct{}), own: map[string]*registration{}, left: map[string]time.Time{}, cache: newCache(),
	}
	var failed []error
	for _, network := range []string{"udp4", "udp6"} {
		s, err := listen(network)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		r.sockets = append(r.sockets, s)
	}
	if len(r.sockets) == 0 {
		stop()
		return nil, fmt.Errorf("open mdns registry: %w", errors.Join(failed...))
	}
	r.follow()
	for _, s := range r.sockets {
		r.tasks.Go(func() { s.read(true, r.take) })
		r.tasks.Go(func() { s.read(false, r.take) })
	}
	r.tasks.Go(func() { r.run(ctx) })
	return r, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, err := configure(u)
	return err
}

func configure(u *url.URL) (config, error) {
	c := config{domain: "micro."}
	if u == nil {
		return c, nil
	}
	if u.Scheme != "mdns" || u.User != nil || u.Path != "" && u.Path != "/" {
		return c, errors.New("expected mdns://DOMAIN, mostly mdns://micro")
	}
	if u.Host != "" {
		if label(u.Host) != u.Host || len(u.Host) > 60 {
			return c, fmt.Errorf("expected mdns://DOMAIN, mostly mdns://micro, got %.100q", u.Host)
		}
		c.domain = u.Host + "."
	}
	p := engineurl.Query(u)
	if given := p.String("interface", ""); given != "" {
		c.names = strings.Split(given, ",")
		if _, err := interfaces(c.names); err != nil {
			p.Fail("interface", given, "names of interfaces of this machine with commas between")
		}
	}
	return c, p.Err()
}

// Close takes leave for all that is registered here. Closing again does
// nothing.
func (r *Registry) Close() error {
	r.closing.Do(func() { r.closeErr = r.close() })
	return r.closeErr
}

func (r *Registry) close() error {
	r.mu.Lock()
	for name := range r.own {
		r.remove(name)
	}
	r.mu.Unlock()
	r.stop()
	var errs []error
	for _, s := range r.sockets {
		errs = append(errs, s.close())
	}
	r.tasks.Wait()
	return errors.Join(errs...)
}

// EndsWithProcess marks the registry as [registry.Fleeting].
func (r *Registry) EndsWithProcess() {}

// Ping reports whether there is an interface to the network.
func (r *Registry) Ping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.joined.Load() == 0 {
		return errors.New("no network interface takes part in multicast")
	}
	return nil
}

// follow takes up the interfaces that are there now.
func (r *Registry) follow() {
	wanted, err := interfaces(r.names)
	if err != nil {
		r.odd.Warn("a network interface is not there", "error", err)
	}
	n := 0
	for _, s := range r.sockets {
		n += s.follow(wanted)
	}
	r.joined.Store(int64(n))
}

// await waits until the picture is known.
func (r *Registry) await(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-r.begun:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
