// Package sidecar is how a micro of one's own is built: the command line, with
// a table of registries, brokers, selectors and middleware that a main function
// puts together. It owns that table and its checks; everything behind it is
// internal. docs/plugins.md shows a custom build, cmd/micro is the plain one.
//
// What is exported here, in the ports registry and broker, and in gomicro is
// what other modules may build on.
package sidecar

import (
	"context"
	"log/slog"
	"net/url"
	"os"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/cli"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

// Main runs the command line of micro with what the plug-ins bring, and exits
// with its status. Two plug-ins of one kind and name, a name that a command line cannot
// say, or one without a function are told in one line on stderr, with status 2,
// before anything else is done.
func Main(plugins ...Plugin) {
	drivers, err := assemble(plugins)
	if err != nil {
		os.Exit(cli.Broken(os.Stderr, err))
	}
	os.Exit(cli.Run(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr, drivers))
}

// Plugin is a line of the table: what [Standard], [Registry], [Broker],
// [Selector] and [Middleware] return.
type Plugin func(*table)

// Env is what a registry or broker is opened with.
type Env struct {
	// Address is --registry_address or --broker_address as a URL, nil when it
	// was not given. Without a scheme of its own it has the plug-in's name. A
	// driver refuses what it does not understand.
	Address *url.URL
	// Registry is what the sidecar discovers through; for brokers.
	Registry registry.Registry
	// MaxBodySize is the largest message body in bytes; for brokers.
	MaxBodySize int64
	Log         *slog.Logger
}

// Registry lets --registry=name use a registry of one's own. open is called
// once by a sidecar, and by each command that is not told to go through one; it
// need not wait until the engine can be reached. An error ends the program,
// but one that is a timeout (see [net.Error]) makes a sidecar try again. A
// registry that is an [io.Closer] is closed at the end.
func Registry(name string, open func(context.Context, Env) (registry.Registry, error)) Plugin {
	return func(t *table) {
		enter(t, "registry", name, open == nil, t.drivers.Registries, func(ctx context.Context, e sidecar.Env) (registry.Registry, error) {
			return open(ctx, env(e))
		})
	}
}

// Broker lets --broker=name use a broker of one's own; open is as in
// [Registry].
func Broker(name string, open func(context.Context, Env) (broker.Broker, error)) Plugin {
	return func(t *table) {
		enter(t, "broker", name, open == nil, t.drivers.Brokers, func(ctx context.Context, e sidecar.Env) (broker.Broker, error) {
			return open(ctx, env(e))
		})
	}
}

func env(e sidecar.Env) Env {
	return Env{Address: e.Address, Registry: e.Registry, MaxBodySize: e.MaxBodySize, Log: e.Log}
}
