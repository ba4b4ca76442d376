package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"github.com/gofrs/flock"

	"github.com/micro/sidecar/internal/sleep"
)

const (
	// electInterval is how often a process without a host tries to become it.
	electInterval = 20 * time.Millisecond
	// takeOverTime is what a take-over needs at most; longer is worth a warning.
	takeOverTime = 2 * time.Second
	// retryHosting is the pause after a start that failed.
	retryHosting = time.Second
)

// tryHost takes the lock if it is free and becomes the host. It reports false
// without an error when another process has the lock.
func (e *Engine) tryHost() (bool, error) {
	lock := flock.New(e.folder.lock())
	taken, err := lock.TryLock()
	if err != nil {
		return false, fmt.Errorf("take the engine's lock: %w", err)
	}
	if !taken {
		return false, nil
	}
	h, err := e.host()
	if err != nil {
		return false, errors.Join(err, lock.Close())
	}
	e.mu.Lock()
	// The lock is kept here for the life of the engine: an unreachable file is
	// closed by the garbage collector, which would release the lock and let a
	// second host into the store.
	e.lock, e.hosted = lock, h
	e.mu.Unlock()
	return true, nil
}

// host starts and publishes the server. The caller has the lock.
func (e *Engine) host() (*host, error) {
	// What the last host published must mislead nobody from here on.
	if err := os.Remove(e.folder.host()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the former host's address: %w", err)
	}
	if err := e.folder.claimStore(); err != nil {
		return nil, err
	}
	h, err := startHost(e.folder, e.o.Listen, e.o.Sync, e.o.Log)
	if err != nil {
		return nil, err
	}
	p := h.published(e.o.Version)
	if !loopback(h.server.Addr()) {
		e.o.Log.Warn("embedded engine: it can be reached from other machines, and its connections are not encrypted", "address", h.server.Addr())
	}
	if err := p.write(e.folder.host()); err != nil {
		stopErr := h.stop(context.Background())
		return nil, errors.Join(fmt.Errorf("publish the engine's address: %w", err), stopErr)
	}
	return h, nil
}

// keep takes over when the host is gone. It ends when this process has become
// the host, which it then stays, or with ctx.
func (e *Engine) keep(ctx context.Context) {
	for ctx.Err() == nil && !e.Hosting() {
		select {
		case <-e.registry.link.Lost():
		case <-e.messages.link.Lost():
		case <-ctx.Done():
			return
		}
		e.recover(ctx)
	}
}

// recover waits until both connections are up again, trying to become the host
// meanwhile. A paused host keeps its lock, so all this does then is to wait.
func (e *Engine) recover(ctx context.Context) {
	log := e.o.Log.With("data_dir", e.o.DataDir)
	log.Info("embedded engine: the host is gone")
	since, complained := time.Now(), ""
	late := time.AfterFunc(takeOverTime, func() { log.Warn("embedded engine: still no host that answers") })
	defer late.Stop()
	for ctx.Err() == nil {
		if e.registry.link.Up() && e.messages.link.Up() {
			log.Info("embedded engine: connected again", "after", time.Since(since).Round(time.Millisecond))
			return
		}
		wait := electInterval
		hosting, err := e.tryHost()
		if hosting {
			log.Info("embedded engine: this process is the host now", "after", time.Since(since).Round(time.Millisecond))
			return
		}
		if err != nil {
			wait = retryHosting
			if err.Error() != complained {
				complained = err.Error()
				log.Error("embedded engine: cannot take over", "error", err)
			}
		}
		if sleep.For(ctx, jitter(wait)) != nil {
			return
		}
	}
}

func loopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
