// Package natsquery is the registry driver that speaks with go-micro's NATS
// registry. That registry keeps nothing: who wants to know asks on a subject,
// all processes answer for themselves, and who registers or leaves says so on
// another. This driver owns those messages, and a picture of all services
// that the answers and announcements fill, so that look-ups need not wait.
//
// There is no engine that knows: a process that died without a word is missed
// when it did not answer twice, some ten seconds later. A registration lives
// as long as the process that made it, also one without a time to live.
package natsquery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	gonats "github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/complain"
	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/engineurl"
	"github.com/micro/sidecar/internal/natsconn"
	"github.com/micro/sidecar/registry"
)

// go-micro's subjects.
const (
	querySubject = "micro.nats.query"
	watchSubject = "micro.nats.watch"
)

// Registry implements [registry.Registry]. It is safe for concurrent use.
type Registry struct {
	conn *natsconn.Conn
	link *link.Link
	log  *slog.Logger
	odd  *complain.Log

	ctx   context.Context // ends with Close
	close context.CancelFunc
	tasks sync.WaitGroup

	mu       sync.Mutex
	own      picture // what was registered here, with ends
	all      picture // what is known of everybody, ours included
	round    int     // of questions to everybody
	ready    bool    // the first round has ended
	waiting  chan struct{}
	watchers map[*watcher]struct{}
}

var (
	_ registry.Registry = (*Registry)(nil)
	_ registry.Pinger   = (*Registry)(nil)
	_ registry.Fleeting = (*Registry)(nil)
)

// Open connects to the server at u, see [natsconn.Parse]. It does not wait for
// the server.
func Open(u *url.URL, log *slog.Logger) (*Registry, error) {
	config, err := configure(u)
	if err != nil {
		return nil, fmt.Errorf("open nats registry: %w", err)
	}
	// Nobody has to tell us what we said ourselves, perhaps too late.
	conn, err := config.Connect(log, gonats.NoEcho())
	if err != nil {
		return nil, fmt.Errorf("open nats registry: %w", err)
	}
	r := &Registry{
		conn: conn, link: link.New(conn.Conn), log: log, odd: complain.New(log),
		own: picture{}, all: picture{}, waiting: make(chan struct{}), watchers: map[*watcher]struct{}{},
	}
	r.ctx, r.close = context.WithCancel(context.Background())
	if err := r.subscribe(); err != nil {
		return nil, errors.Join(fmt.Errorf("open nats registry: %w", err), r.Close())
	}
	r.tasks.Go(r.run)
	return r, nil
}

// CheckAddress says what is wrong with an address, as [Open] would.
func CheckAddress(u *url.URL) error {
	_, err := configure(u)
	return err
}

func configure(u *url.URL) (*natsconn.Config, error) {
	p := engineurl.Query(u)
	config, err := natsconn.Parse(u, p)
	if err != nil {
		return nil, err
	}
	p.Choice("layout", "gomicro")
	return config, p.Err()
}

// subscribe listens for questions and announcements. The connection carries
// both to whatever server it reaches.
func (r *Registry) subscribe() error {
	for subject, handle := range map[string]gonats.MsgHandler{querySubject: r.asked, watchSubject: r.told} {
		if _, err := r.conn.Subscribe(subject, handle); err != nil {
			return err
		}
	}
	return nil
}

// EndsWithProcess marks the registry as [registry.Fleeting].
func (r *Registry) EndsWithProcess() {}

// Close ends the connection. What was registered here is not answered for any
// longer.
func (r *Registry) Close() error {
	r.close()
	r.tasks.Wait()
	r.link.Close()
	r.conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, nodes := range r.own {
		for _, n := range nodes {
			n.stop()
		}
	}
	return nil
}

// Ping implements [registry.Pinger].
func (r *Registry) Ping(ctx context.Context) error {
	if err := link.Ping(ctx, r.link); err != nil {
		return r.conn.Explain(fmt.Errorf("the registry's NATS server cannot be reached: %w", err))
	}
	return nil
}

// known waits until the first round of answers is in.
func (r *Registry) known(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, link.Patience)
	defer cancel()
	select {
	case <-r.waiting:
		return nil
	case <-ctx.Done():
		return r.conn.Explain(ctx.Err())
	}
}

// Register implements [registry.Registry]. Again renews, and says so to all as
// go-micro does.
func (r *Registry) Register(ctx context.Context, s registry.Service, ttl time.Duration) error {
	if err := check(s); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	if err := r.known(ctx); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	if err := r.announce(ctx, "create", s); err != nil {
		return fmt.Errorf("register %s: %w", s.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range s.Nodes {
		one := single(s, n)
		mine := &member{service: one, last: time.Now()}
		if ttl > 0 {
			mine.timer = time.AfterFunc(ttl, func() { r.expire(mine) })
		}
		r.own.put(mine).stop()
		r.see(one)
	}
	return nil
}

// Deregister implements [registry.Registry]. Whoever answers for a node of
// another process goes on doing so, if it is go-micro; a sidecar does not.
func (r *Registry) Deregister(ctx context.Context, s registry.Service) error {
	if err := check(s); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("deregister %s: %w", s.Name, err)
	}
	for _, n := range s.Nodes {
		r.mu.Lock()
		gone := r.forget(s.Name, n.ID)
		r.mu.Unlock()
		if gone == nil {
			continue
		}
		if err := r.announce(ctx, "delete", gone.service); err != nil {
			return fmt.Errorf("deregister %s: %w", s.Name, err)
		}
	}
	return nil
}

// Get implements [registry.Registry]. A service that is not in the picture is
// asked for, which takes as long as go-micro waits for answers.
func (r *Registry) Get(ctx context.Context, name string) ([]registry.Service, error) {
	if err := r.known(ctx); err != nil {
		return nil, fmt.Errorf("get %s: %w", name, err)
	}
	services := r.look(name)
	if len(services) == 0 && name != "" {
		if err := r.ask(ctx, name, answerTime); err != nil {
			return nil, fmt.Errorf("get %s: %w", name, err)
		}
		services = r.look(name)
	}
	if len(services) == 0 {
		return nil, fmt.Errorf("get %s: %w", name, registry.ErrNotFound)
	}
	return services, nil
}

func (r *Registry) look(name string) []registry.Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.group(name)
}

// List implements [registry.Registry].
func (r *Registry) List(ctx context.Context) ([]string, error) {
	if err := r.known(ctx); err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all.names(), nil
}

func check(s registry.Service) error {
	if s.Name == "" {
		return errors.New("the service has no name")
	}
	for _, n := range s.Nodes {
		if n.ID == "" {
			return errors.New("a node has no id")
		}
	}
	return nil
}
