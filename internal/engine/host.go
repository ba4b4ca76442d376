package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// maxPayload is the largest message in bytes, header included: a stream on
	// disk takes no larger one.
	maxPayload = 32 << 20
	// maxPending is what the server buffers for a client before it calls it
	// too slow and drops it: a few of the largest messages.
	maxPending = 4 * maxPayload
	// maxMemory bounds streams held in memory; ours are on disk.
	maxMemory = 64 << 20
	// syncInterval is how much a power failure may cost unless Options say
	// otherwise. A killed process loses nothing: what is acknowledged is the
	// kernel's by then.
	syncInterval = 5 * time.Second
	// startTimeout bounds the recovery of a large store.
	startTimeout = 30 * time.Second
)

// host is a running server.
type host struct {
	server *server.Server
	token  string
	log    *logger
}

// broken is closed when the server could not write to its disk.
func (h *host) broken() <-chan struct{} { return h.log.broken }

func (h *host) spoiled() bool { return h.log.isBroken() }

// startHost starts the server on a store that the caller has locked.
func startHost(f folder, listen string, sync time.Duration, log *slog.Logger) (*host, error) {
	address, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, fmt.Errorf("engine address %q: expected host:port: %w", listen, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return nil, fmt.Errorf("engine address %q: expected a port from 0 to 65535", listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	h := &host{token: newToken(), log: newLogger(log)}
	auth := &authenticator{token: []byte(h.token)}
	opts := &server.Options{
		ServerName: "micro",
		Host:       address,
		Port:       port,
		NoSigs:     true, // signals are handled in cli alone

		CustomClientAuthentication: auth,

		MaxPayload:             maxPayload,
		MaxPending:             maxPending,
		JetStream:              true,
		DisableJetStreamBanner: true,
		JetStreamMaxMemory:     maxMemory,
		StoreDir:               f.store(),
		SyncInterval:           syncInterval,
		SyncAlways:             sync < 0,
	}
	if sync > 0 {
		opts.SyncInterval = sync
	}
	for _, name := range []string{registryAccount, messagesAccount} {
		opts.Accounts = append(opts.Accounts, server.NewAccount(name))
	}
	if h.server, err = server.NewServer(opts); err != nil {
		return nil, fmt.Errorf("start the embedded engine: %w", err)
	}
	auth.lookup = h.server.LookupAccount
	if err := h.start(h.log); err != nil {
		h.server.Shutdown()
		h.server.WaitForShutdown()
		return nil, fmt.Errorf("start the embedded engine on %s: %w", listen, err)
	}
	return h, nil
}

func (h *host) start(l *logger) error {
	h.server.SetLoggerV2(l, false, false, false)
	h.server.Start()
	if err := l.err(); err != nil {
		return err
	}
	if !h.server.ReadyForConnections(startTimeout) {
		return errors.Join(fmt.Errorf("not ready within %v", startTimeout), l.err())
	}
	for _, name := range []string{registryAccount, messagesAccount} {
		account, err := h.server.LookupAccount(name)
		if err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
		if err := account.EnableJetStream(nil, nil); err != nil {
			return fmt.Errorf("open the store of account %s: %w", name, err)
		}
	}
	l.started.Store(true)
	return l.err()
}

// published is what the host tells the others.
func (h *host) published(version string) published {
	address := h.server.Addr().String()
	p := published{Format: format, Version: version, Address: address, PID: os.Getpid(), Token: h.token}
	if hostname, port, err := net.SplitHostPort(address); err == nil && net.ParseIP(hostname).IsUnspecified() {
		p.Address = net.JoinHostPort("127.0.0.1", port)
	}
	return p
}

// stop flushes the store and ends the server. When ctx ends first the server
// goes on ending by itself, and the lock must not be released.
func (h *host) stop(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.server.Shutdown()
		h.server.WaitForShutdown()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the embedded engine: %w", ctx.Err())
	}
}
