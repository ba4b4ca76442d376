package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/internal/cli"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
	registrymemory "github.com/micro/sidecar/registry/memory"
)

// serveHop serves as a hop of this program's own, with a second listener that
// tells how many allocations there were.
func serveHop(ctx context.Context, kind string, args []string) error {
	switch {
	case kind == "reverse" && len(args) == 5:
		return serveReverse(ctx, args[0], args[1], args[2], args[3], args[4])
	case kind == "micro" && len(args) == 5:
		return serveMicro(args[0], args[1], args[2], nodes(args[3], args[4]))
	}
	return fmt.Errorf("no hop %q of %d arguments", kind, len(args))
}

// serveReverse serves Go's own ReverseProxy at two addresses, with TLS at the
// second.
func serveReverse(ctx context.Context, plain, secure, counts, backend, certificates string) error {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 1024}
	proxy.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // requests that the end of a measurement cuts
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second, Protocols: &protocols, ErrorLog: proxy.ErrorLog}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	var g errgroup.Group
	listen := func(address string, serve func(net.Listener) error) {
		g.Go(func() error {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	listen(plain, server.Serve)
	listen(secure, func(l net.Listener) error {
		return server.ServeTLS(l, certificates+"/cert.pem", certificates+"/key.pem")
	})
	listen(counts, serveCounts(ctx))
	return g.Wait()
}

// serveMicro serves as a sidecar: what is measured is the code on the way of a
// request, for which it does not matter that its registry is in memory.
func serveMicro(handler, address, counts string, nodes []node) error {
	nodesIn := registrymemory.New()
	for _, n := range nodes {
		at, err := netip.ParseAddrPort(n.address)
		if err != nil {
			return err
		}
		node := registry.Node{ID: n.name + "-1", Address: at.Addr().String(), Port: int(at.Port())}
		if n.protocol != "" {
			node.Metadata = map[string]string{"protocol": n.protocol}
		}
		if err := nodesIn.Register(context.Background(), registry.Service{Name: "go.micro.srv." + n.name, Nodes: []registry.Node{node}}, 0); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", counts)
	if err != nil {
		return err
	}
	go func() { _ = serveCounts(context.Background())(l) }() // until the process ends
	status := cli.Run([]string{"sidecar", "--registry=memory", "--broker=memory", "--log_level=warn", "--handler=" + handler, "--address=" + address},
		nil, os.Stdin, io.Discard, os.Stderr, sidecar.Drivers{
			Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){
				"memory": func(context.Context, sidecar.Env) (registry.Registry, error) { return nodesIn, nil },
			},
			Brokers: map[string]func(context.Context, sidecar.Env) (broker.Broker, error){
				"memory": func(context.Context, sidecar.Env) (broker.Broker, error) { return brokermemory.New(), nil },
			},
		})
	if status != 0 {
		return fmt.Errorf("the sidecar ended with status %d", status)
	}
	return nil
}

// serveCounts serves the number of allocations so far.
func serveCounts(ctx context.Context) func(net.Listener) error {
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		_, _ = io.WriteString(w, strconv.FormatUint(m.Mallocs, 10)) // whoever asked is there
	})}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return server.Serve
}
