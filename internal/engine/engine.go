// Package engine is NATS with JetStream inside the process, shared by all
// processes of one user that name the same data directory: one of them hosts
// the server, elected by a lock on a file there, and publishes its address;
// the others join it. When the host stops or dies another takes over with the
// same store, and every connection finds it by itself.
//
// The package owns the election, the server, the store's place and format, and
// one connection for each of two accounts. It knows nothing of services,
// topics and messages: that is the drivers' part.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats.go"

	"github.com/micro/sidecar/internal/engine/link"
	"github.com/micro/sidecar/internal/sleep"
)

var (
	// ErrNoHost is returned by Open to a process that only joins.
	ErrNoHost = errors.New("no sidecar is running")
	// ErrNewer is returned by Open when the store, or its host, is of a
	// version that this program does not know.
	ErrNewer = errors.New("a newer micro")
)

const (
	// openTimeout bounds Open, when its context does not.
	openTimeout = 10 * time.Second
)

// Options say where the engine is and what this process may be.
type Options struct {
	// DataDir is an absolute path; it is created with mode 0700.
	DataDir string
	// Listen is where this process listens when it hosts, "host:port"; "" is
	// 127.0.0.1 and a free port.
	Listen string
	// CanHost lets this process host. Without it, it only joins.
	CanHost bool
	// Sync is how long what was written may wait until the disk has it, which
	// is what a power failure may cost; 0 is five seconds, negative is no time:
	// every message is on the disk before it is acknowledged.
	Sync time.Duration
	// Version is published for people; "" is "unknown".
	Version string
	// Log gets the life of the engine and the server's complaints; nil is
	// [slog.Default].
	Log *slog.Logger
}

// Engine is this process's part of the engine. It is safe for concurrent use.
type Engine struct {
	o      Options
	folder folder
	begun  time.Time

	registry, messages account
	space              space

	stop context.CancelFunc
	kept chan struct{} // closed when keep has ended

	mu     sync.Mutex
	lock   *flock.Flock // nil while joined
	hosted *host        // nil while joined, and while it is started anew
}

// account is a connection to one account.
type account struct {
	conn *nats.Conn
	link *link.Link
}

func (a *account) close() {
	if a.conn != nil {
		a.link.Close()
		a.conn.Close()
	}
}

// Open hosts the engine or joins it and returns when it can be used, or when
// ctx ends, at most after ten seconds. The errors are sentences for people;
// they wrap [ErrNoHost] and [ErrNewer].
func Open(ctx context.Context, o Options) (*Engine, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Version == "" {
		o.Version = "unknown"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	f, err := openFolder(o.DataDir, o.CanHost)
	if err != nil {
		return nil, err
	}
	e := &Engine{o: o, folder: f, begun: time.Now(), kept: make(chan struct{})}
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := e.open(opening); err != nil {
		return nil, errors.Join(err, e.release(context.WithoutCancel(ctx)))
	}
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = stop
	go func() {
		defer close(e.kept)
		if o.CanHost {
			e.keep(keeping)
			e.tend(keeping)
		}
		<-keeping.Done()
		// Until Close something holds on to the engine and so to its lock, even
		// if the caller has dropped it.
		runtime.KeepAlive(e)
	}()
	return e, nil
}

// open hosts or joins, until ctx ends.
func (e *Engine) open(ctx context.Context) error {
	var alone time.Time // since when nobody holds the lock
	for {
		if e.o.CanHost && !e.Hosting() {
			if _, err := e.tryHost(); err != nil {
				return err
			}
		}
		err := e.join(ctx)
		switch {
		case err == nil || errors.Is(err, ErrNewer):
			return err
		case !errors.Is(err, ErrNoHost):
			alone = time.Time{}
		case alone.IsZero():
			alone = time.Now()
		case !e.o.CanHost && time.Since(alone) > e.folder.patience():
			return noHost(e.o.DataDir)
		}
		if over := sleep.For(ctx, jitter(electInterval)); over != nil {
			return fmt.Errorf("the embedded engine in %s does not answer: %w (%w)", e.o.DataDir, err, over)
		}
	}
}

// join connects to both accounts.
func (e *Engine) join(ctx context.Context) error {
	for _, a := range []struct {
		name    string
		account *account
	}{{registryAccount, &e.registry}, {messagesAccount, &e.messages}} {
		if a.account.conn != nil {
			continue
		}
		timeout := dialTimeout
		if deadline, bounded := ctx.Deadline(); bounded {
			timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
		}
		conn, err := connect(e.folder, a.name, timeout, e.o.Log)
		if err != nil {
			return err
		}
		*a.account = account{conn, link.New(conn)}
	}
	return nil
}

// RegistryConn returns the connection to the registry's account. It lives
// until Close and reconnects by itself, to another host if need be.
func (e *Engine) RegistryConn() *nats.Conn { return e.registry.conn }

// MessagesConn returns the connection to the messages' account, like RegistryConn.
func (e *Engine) MessagesConn() *nats.Conn { return e.messages.conn }

// Hosting reports whether this process is the host now.
func (e *Engine) Hosting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lock != nil
}

// Ping asks the host for a sign of life on both connections. The error is a
// sentence for people.
func (e *Engine) Ping(ctx context.Context) error {
	for _, a := range []*account{&e.registry, &e.messages} {
		if !a.link.Up() {
			return fmt.Errorf("the embedded engine in %s has no host at the moment, or it does not answer", e.o.DataDir)
		}
		if err := link.Ping(ctx, a.link); err != nil {
			return fmt.Errorf("the embedded engine in %s does not answer: %w", e.o.DataDir, err)
		}
	}
	return nil
}

// Close closes the connections. A host stops its server and then lets go of
// the lock, so that another process takes over with everything on disk. When
// ctx ends first the lock stays taken until the process ends. Closing again
// does nothing more.
func (e *Engine) Close(ctx context.Context) error {
	e.stop()
	select {
	case <-e.kept:
		return e.release(ctx)
	case <-ctx.Done(): // it is just taking over
		return fmt.Errorf("close the embedded engine: %w", ctx.Err())
	}
}

// release gives back all there is.
func (e *Engine) release(ctx context.Context) error {
	e.messages.close()
	e.registry.close()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lock == nil {
		return nil
	}
	if e.hosted != nil {
		if err := e.hosted.stop(ctx); err != nil {
			return err
		}
		e.hosted = nil
	}
	err := os.Remove(e.folder.host())
	if errors.Is(err, fs.ErrNotExist) { // it has failed to start anew
		err = nil
	}
	err = errors.Join(err, e.lock.Close())
	e.lock = nil
	return err
}
