package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/api"
	"github.com/micro/sidecar/internal/httpmsg"
)

// admin is the listener of --admin_address: for probes, scrapes and profiles
// that cannot come by loopback. It asks for no token and looks at no host name,
// so what it serves tells, and changes nothing. The zero value listens nowhere.
type admin struct {
	server  *http.Server
	own     atomic.Pointer[api.API] // nil while the sidecar starts
	awaited *awaited                // what it then waits for
	ended   chan struct{}
}

// adminHeadTimeout bounds the reading of a request's head, adminIdleTimeout the
// wait for the next one.
const (
	adminHeadTimeout = 10 * time.Second
	adminIdleTimeout = 2 * time.Minute
	adminMaxHead     = 16 << 10
)

// listen binds the address and begins to answer.
func (a *admin) listen(ctx context.Context, address string, log *slog.Logger) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program; choose another with --admin_address", address)
	}
	if err != nil {
		return fmt.Errorf("listen on %s for --admin_address: %w", address, err)
	}
	a.server = &http.Server{
		Handler: http.HandlerFunc(a.serve), ReadHeaderTimeout: adminHeadTimeout, IdleTimeout: adminIdleTimeout,
		MaxHeaderBytes: adminMaxHead, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	a.ended = make(chan struct{})
	log.Info("probes, metrics and profiles for whoever can reach this address", "admin_address", l.Addr().String())
	go func() {
		defer close(a.ended)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the listener of --admin_address broke", "error", err)
		}
	}()
	return nil
}

// stop closes the listener; a profile that is being made is cut off at the end
// of ctx.
func (a *admin) stop(ctx context.Context) error {
	if a.server == nil {
		return nil
	}
	err := a.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, a.server.Close())
	}
	<-a.ended
	return err
}

func (a *admin) serve(w http.ResponseWriter, r *http.Request) {
	if h := profiles(r.URL.Path); h != nil {
		h(w, r)
		return
	}
	switch own := a.own.Load(); r.URL.Path {
	case "/livez", "/readyz", "/metrics":
		if own == nil {
			starting{a.awaited}.Own(r.URL.Path).ServeHTTP(w, r)
			return
		}
		own.Admin(r.URL.Path).ServeHTTP(w, r)
	default:
		api.Fail(w, r, httpmsg.Errorf(http.StatusNotFound, "--admin_address serves /livez, /readyz, /metrics and /debug/pprof/, not %s", r.URL.Path))
	}
}

// profiles returns the handler of net/http/pprof for a path, or nil. The
// package would also serve on a multiplexer of everybody's.
func profiles(path string) http.HandlerFunc {
	const root = "/debug/pprof"
	switch path {
	case root:
		return http.RedirectHandler(root+"/", http.StatusMovedPermanently).ServeHTTP
	case root + "/cmdline":
		return nil // it may hold secrets
	case root + "/profile":
		return pprof.Profile
	case root + "/symbol":
		return pprof.Symbol
	case root + "/trace":
		return pprof.Trace
	}
	if len(path) > len(root) && path[:len(root)+1] == root+"/" {
		return pprof.Index
	}
	return nil
}
