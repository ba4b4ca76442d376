// Discovery measures a sidecar on each engine that can hold many services: how
// long after a change its calls go to the new address, its CPU time and memory
// while much changes, and what it sends to the engine, which must not grow with
// the requests that it carries.
//
//	go run ./bench/discovery [-micro bin/micro] [-engines embedded,nats,etcd,consul] [-services 10000] [-nodes 10] [-rate 200]
//
// One sidecar writes all registrations, another one, which is measured, uses
// every service. Messages to the engine are the reads with which a relay before
// it takes what the measured sidecar sends; the embedded engine has none. It
// needs etcd and consul on PATH or in .cache/bin, is Linux only, and prints the
// table for docs/discovery.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
)

// options are the flags.
type options struct {
	micro, engines         string
	services, nodes, rate  int
	length                 time.Duration
	connections, samplesOf int
	writers                int
}

func main() {
	var o options
	flag.StringVar(&o.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.StringVar(&o.engines, "engines", "embedded,nats,etcd,consul", "engines, separated by commas")
	flag.IntVar(&o.services, "services", 10_000, "services that are registered")
	flag.IntVar(&o.nodes, "nodes", 10, "nodes of each, at most 200")
	flag.IntVar(&o.rate, "rate", 200, "changes a second")
	flag.IntVar(&o.samplesOf, "sample", 5, "of so many changes one is watched until it is used")
	flag.IntVar(&o.connections, "connections", 32, "connections of the load")
	flag.IntVar(&o.writers, "writers", 32, "registrations under way at the same time, at first")
	flag.DurationVar(&o.length, "length", 20*time.Second, "length of each measurement")
	flag.Parse()
	command.Run("discovery", func(ctx context.Context) error { return run(ctx, o) })
}

func (o options) check() error {
	if o.services < 2 || o.nodes < 1 || o.nodes > 200 || o.rate < 1 || o.samplesOf < 1 || o.connections < 1 || o.writers < 1 || o.length <= 0 {
		return errors.New("a flag is out of range: at least 2 services, 1 to 200 nodes, 1 change a second")
	}
	return process.Supported()
}

// run measures one engine after the other and prints the table.
func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "micro-discovery-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.micro, err = process.Binary(ctx, o.micro, dir); err != nil {
		return err
	}
	var rows []row
	for name := range strings.SplitSeq(o.engines, ",") {
		r, failed := measure(ctx, o, dir, name)
		if failed != nil { // what others have shown is not lost
			err = errors.Join(err, fmt.Errorf("%s: %w", name, failed))
			continue
		}
		rows = append(rows, r)
	}
	fmt.Printf("%d services x %d nodes, %d changes/s, %d connections\n\n", o.services, o.nodes, o.rate, o.connections)
	return errors.Join(printTable(rows), err)
}

// row is what was measured on one engine.
type row struct {
	engine              string
	registered          time.Duration // all services
	p50, p99            time.Duration // from a change to its use
	missed              int           // changes that were not used in time
	rate                float64       // changes a second that were made
	cpu                 float64       // cores, while much changes
	memory              int64         // bytes resident after that
	requests            float64       // a second, of the load
	idle, loaded, churn float64       // messages a second to the engine
}

func printTable(rows []row) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 1, ' ', 0)
	fmt.Fprintln(w, "| engine\t| registered in\t| change to use p50\t| p99\t| changes/s\t| CPU, cores\t| memory\t| to the engine, idle\t| under load\t| at changes\t|")
	fmt.Fprintln(w, "| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t| ---\t|")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s\t| %v\t| %v\t| %v\t| %.0f\t| %.2f\t| %d MB\t| %.1f/s\t| %.1f/s at %.0f requests/s\t| %.0f/s\t|\n",
			r.engine, r.registered.Round(time.Second), r.p50.Round(100*time.Microsecond), r.p99.Round(100*time.Microsecond),
			r.rate, r.cpu, r.memory>>20, r.idle, r.loaded, r.requests, r.churn)
		if r.missed > 0 {
			fmt.Fprintf(os.Stderr, "%s: %d changes were not used within %v\n", r.engine, r.missed, useLimit)
		}
	}
	return w.Flush()
}
