// Package static is the registry driver for services that stand in a file, as
// addresses or as DNS names. It owns the file's form, its reloading, and the
// look-up of the names again and again as their time to live has it. Nothing
// can be registered.
package static

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/picture"
	"github.com/micro/sidecar/registry"
)

const (
	// maxFile bounds the file in bytes: some 100,000 nodes.
	maxFile = 16 << 20
	// lookInterval is how often the file is looked at. A change is taken when
	// two looks in a row have seen the same, so that a file that is still being
	// written is left alone. Looking, unlike inotify, works on every system and
	// file system, and sees what a link, or a link in the path, points to now.
	lookInterval = 400 * time.Millisecond
	// firstAnswers is how long Open waits for DNS.
	firstAnswers = 3 * time.Second
)

// Registry holds what the file says. It is safe for concurrent use.
type Registry struct {
	*picture.Picture // Get, List and Watch
	path             string
	log              *slog.Logger
	resolver         *resolver
	names            *names
	stop             context.CancelFunc
	tasks            sync.WaitGroup
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ io.Closer         = (*Registry)(nil)
)

// Open reads the file at u, static:///path or static://./relative, with the
// parameter nameserver=HOST:PORT for DNS in place of those of
// /etc/resolv.conf. It waits some seconds for DNS, where the file has names.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	path, resolver, err := configure(u)
	if err != nil {
		return nil, err
	}
	seen, err := look(path)
	if err != nil {
		return nil, err
	}
	services, err := load(path)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Registry{Picture: picture.New(), path: path, log: log, resolver: resolver, stop: stop}
	r.names = newNames(r.Picture, resolver, log)
	first := r.names.use(ctx, services)
	r.tasks.Go(func() { r.reload(ctx, seen) })
	wait, cancel := context.WithTimeout(ctx, firstAnswers)
	defer cancel()
	for _, answered := range first {
		select {
		case <-answered:
		case <-wait.Done():
		}
	}
	return r, nil
}

// CheckAddress says what is wrong with an address, or with the file there.
func CheckAddress(u *url.URL) error {
	path, _, err := configure(u)
	if err != nil {
		return err
	}
	_, err = load(path)
	return err
}

func configure(u *url.URL) (path string, r *resolver, err error) {
	if u == nil {
		return "", nil, errors.New("expected the path of a file")
	}
	if u.Scheme != "static" || u.User != nil {
		return "", nil, errors.New("expected static:///PATH or the path of a file")
	}
	path = u.Host + u.Path // what follows // in static://./services.yaml is a host to net/url
	p := engineurl.Query(u)
	r = &resolver{}
	if given := p.String("nameserver", ""); given != "" {
		server := given
		if _, _, err := net.SplitHostPort(server); err != nil {
			server = net.JoinHostPort(strings.Trim(server, "[]"), "53")
		}
		if host, _, err := net.SplitHostPort(server); err != nil || net.ParseIP(host) == nil {
			p.Fail("nameserver", given, "the IP address of a name server, with or without a port")
		}
		r.server = server
	}
	return path, r, p.Err()
}

// Close ends the look-ups.
func (r *Registry) Close() error {
	r.stop()
	r.tasks.Wait()
	r.names.close()
	return nil
}

// Register is refused with [registry.ErrReadOnly].
func (r *Registry) Register(ctx context.Context, s registry.Service, _ time.Duration) error {
	return r.refuse(ctx, "register", s.Name)
}

// Deregister is refused with [registry.ErrReadOnly].
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	return r.refuse(ctx, "deregister", s.Name)
}

func (r *Registry) refuse(ctx context.Context, what, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%s %s: %w: services are what the file %s says", what, name, registry.ErrReadOnly, r.path)
}

// look returns what os.Stat tells; a folder is refused.
func look(path string) (os.FileInfo, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: expected a file", path)
	}
	return info, err
}

// load reads the file.
func load(path string) ([]*service, error) {
	if _, err := look(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	services, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return services, nil
}

// reload takes the file up again whenever it has changed.
func (r *Registry) reload(ctx context.Context, used os.FileInfo) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	var last os.FileInfo // of the look before; nil when there was no file
	failed := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := look(r.path)
		if err != nil {
			if !failed {
				r.log.Warn("the file of services cannot be read; what it said stays in use", "error", err)
			}
			failed, used, last = true, nil, nil
			continue
		}
		settled := last != nil && unchanged(last, now)
		last = now
		if !settled || used != nil && unchanged(used, now) {
			continue
		}
		used, failed = now, false
		r.take(ctx)
	}
}

// take reads the file and uses it, unless it has a mistake.
func (r *Registry) take(ctx context.Context) {
	services, err := load(r.path)
	if err != nil {
		r.log.Error("the file of services has a mistake; what it said before stays in use", "error", err)
		return
	}
	r.names.use(ctx, services)
	r.log.Info("the file of services was read again", "file", r.path, "services", len(services))
}

func unchanged(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
