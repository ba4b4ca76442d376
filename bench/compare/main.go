// Compare measures what the sidecar's hop costs beside other proxies' on this
// machine, in one run: HAProxy, nginx and a hop of Go's own ReverseProxy, all
// in front of the same backend, driven in turn by wrk.
//
//	go run ./bench/compare [-micro bin/micro] [-rounds 5] [-seconds 2] [-connections 1,64,512]
//
// It needs wrk, haproxy and nginx on PATH (Debian: wrk haproxy nginx-light), and
// Linux, whose accounting it reads. Figures are medians of the rounds; a ratio
// is taken within a round, because machines are noisy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var o options
	hop := flag.String("hop", "", "internal: serve as the ReverseProxy hop in front of this `URL`")
	flag.StringVar(&o.micro, "micro", "bin/micro", "`path` of the micro binary")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	seconds := flag.Float64("seconds", 2, "length of one measurement")
	connections := flag.String("connections", "1,64,512", "numbers of connections")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var err error
	if *hop != "" {
		err = serveHop(ctx, *hop)
	} else if o.connections, err = numbers(*connections); err == nil {
		o.length = time.Duration(*seconds * float64(time.Second))
		err = run(ctx, o)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	micro       string
	rounds      int
	length      time.Duration
	connections []int
}

func numbers(list string) ([]int, error) {
	var out []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-connections: expected numbers from 1, got %q", text)
		}
		out = append(out, n)
	}
	return out, nil
}

// run starts everything, measures, and prints the tables.
func run(ctx context.Context, o options) (err error) {
	for _, tool := range []string{"wrk", "haproxy", "nginx"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is needed and not on PATH (Debian: apt-get install wrk haproxy nginx-light)", tool)
		}
	}
	dir, err := os.MkdirTemp("", "micro-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := &field{dir: dir}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := f.start(ctx, o.micro); err != nil {
		return err
	}
	for _, n := range o.connections {
		results := make([][]sample, len(f.hops))
		for round := range o.rounds {
			for i, h := range f.hops {
				fmt.Fprintf(os.Stderr, "\r%d connections, round %d of %d: %-24s", n, round+1, o.rounds, h.name)
				s, err := measure(ctx, h, n, o.length)
				if err != nil {
					return err
				}
				results[i] = append(results[i], s)
			}
		}
		fmt.Fprint(os.Stderr, "\r", strings.Repeat(" ", 72), "\r")
		if err := print(n, f.hops, results); err != nil {
			return err
		}
	}
	return nil
}
