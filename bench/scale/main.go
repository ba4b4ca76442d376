// Scale measures whether a request costs more when much is registered: two
// sidecars on embedded engines of their own, one with a single service, one
// with many, all of them in use, are driven in turn by the same load. It also
// measures the registry at that size, and the memory after requests for many
// paths that lead nowhere.
//
//	go run ./bench/scale [-micro bin/micro] [-services 10000] [-nodes 10] [-paths 100000]
//
// Figures are medians of the rounds; a ratio is taken within a round, because
// machines are noisy. The exit status is 1 when the CPU time of a request is
// more than -max_ratio times that with one service, or when unknown paths leave
// more than -max_path_bytes of memory each. Linux only: memory and CPU time are
// read from /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/bench/internal/services"
)

func main() {
	var o options
	flag.StringVar(&o.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.IntVar(&o.services, "services", 10_000, "services that are registered")
	flag.IntVar(&o.nodes, "nodes", 10, "nodes of each, at most 200")
	flag.IntVar(&o.paths, "paths", 100_000, "paths that lead nowhere, half of them for each handler")
	flag.IntVar(&o.connections, "connections", 64, "client connections")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	flag.DurationVar(&o.length, "length", 2*time.Second, "length of one measurement")
	flag.Float64Var(&o.maxRatio, "max_ratio", 1.3, "bar for the CPU time of a request, against that with one service")
	flag.Float64Var(&o.maxPathBytes, "max_path_bytes", 200, "bar for the memory that an unknown path leaves, in bytes")
	flag.Parse()
	command.Run("scale", func(ctx context.Context) error { return run(ctx, o) })
}

// options are the flags.
type options struct {
	micro                  string
	services, nodes, paths int
	connections, rounds    int
	length                 time.Duration
	maxRatio, maxPathBytes float64
}

func (o options) check() error {
	if o.services < 2 || o.nodes < 1 || o.nodes > 200 || o.paths < 4 || o.connections < 1 || o.rounds < 1 || o.length <= 0 {
		return errors.New("a flag is out of range: at least 2 services, 4 paths, 1 to 200 nodes, 1 connection, 1 round")
	}
	return process.Supported()
}

// run measures and prints the tables.
func run(ctx context.Context, o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "micro-scale-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.micro, err = process.Binary(ctx, o.micro, dir); err != nil {
		return err
	}
	old, err := services.StartBackend()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	changed, err := services.StartBackend()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, changed.Close()) }()

	client := &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: writers}}
	f := &field{options: o, old: old, changed: changed}
	for _, n := range []int{1, o.services} {
		s, err := process.Start(ctx, o.micro, dir, "--log_level=warn")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Stop()) }()
		f.subjects = append(f.subjects, &subject{Sidecar: s, services: n, client: client})
	}
	if err := f.measure(ctx); err != nil {
		return err
	}
	return errors.Join(f.print(os.Stdout), f.overBar())
}
