// Compare measures what the sidecar's hop costs beside other proxies' on this
// machine, in one run: HAProxy, nginx and a hop of Go's own ReverseProxy, all
// in front of the same backend, driven in turn by wrk, and by h2load over
// HTTP/2.
//
//	go run ./bench/compare [-micro bin/micro] [-rounds 5] [-length 2s] [-rows REGEXP] [-quick] [-check]
//
// It needs wrk, h2load, haproxy and nginx on PATH (Debian: wrk nghttp2-client
// haproxy nginx-light), and Linux, whose accounting it reads. Figures are
// medians of the rounds; a ratio is taken within a round, because machines are
// noisy.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
)

func main() {
	var o options
	hop := flag.String("hop", "", "internal: serve as this `kind` of hop")
	flag.StringVar(&o.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds of each measurement")
	flag.DurationVar(&o.length, "length", 2*time.Second, "length of one measurement, in whole seconds")
	rows := flag.String("rows", "", "measure only the rows whose name this `regexp` matches: "+names(allRows))
	quick := flag.Bool("quick", false, "a look in about a minute: one round of a second each, without the rows of 1 and 512 connections")
	flag.BoolVar(&o.check, "check", false, "fail when a bar is not met")
	flag.Parse()
	if *quick {
		o.rounds, o.length = 1, time.Second
		if *rows == "" {
			*rows = `64|KiB|MiB|tls|http2`
		}
	}
	command.Run("compare", func(ctx context.Context) (err error) {
		if *hop != "" {
			return serveHop(ctx, *hop, flag.Args())
		}
		if o.rows, err = choose(*rows); err != nil {
			return err
		}
		return o.run(ctx, os.Stdout)
	})
}

// options are the flags.
type options struct {
	micro  string
	rounds int
	length time.Duration
	rows   []row
	check  bool
}

// choose returns the rows whose name matches.
func choose(pattern string) ([]row, error) {
	match, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("-rows: %w", err)
	}
	var out []row
	for _, r := range allRows {
		if match.MatchString(r.name) {
			out = append(out, r)
		}
	}
	if out == nil {
		return nil, fmt.Errorf("-rows: %q matches none of %s", pattern, names(allRows))
	}
	return out, nil
}

func names(rows []row) string {
	list := make([]string, len(rows))
	for i, r := range rows {
		list[i] = r.name
	}
	return strings.Join(list, ", ")
}

// missing is the error that names the programs that are not installed.
func missing() error {
	var errs []error
	for tool, pkg := range map[string]string{"wrk": "wrk", "h2load": "nghttp2-client", "haproxy": "haproxy", "nginx": "nginx-light"} {
		if _, err := exec.LookPath(tool); err != nil {
			errs = append(errs, fmt.Errorf("%s is needed and not on PATH (Debian: apt-get install %s)", tool, pkg))
		}
	}
	return errors.Join(errs...)
}

// run starts everything, measures, and prints the tables and the bars.
func (o *options) run(ctx context.Context, out io.Writer) (err error) {
	if err := errors.Join(process.Supported(), missing()); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "micro-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.micro, err = process.Binary(ctx, o.micro, dir); err != nil {
		return err
	}
	f := &field{dir: dir}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := f.start(ctx, o.micro); err != nil {
		return err
	}
	done := map[string]results{}
	for _, r := range o.rows {
		if done[r.name], err = o.measure(ctx, f, r); err != nil {
			return err
		}
		if err := print(out, r, done[r.name]); err != nil {
			return err
		}
	}
	unmet, err := printBars(out, done)
	if err == nil && o.check && unmet > 0 {
		err = fmt.Errorf("bars not met: %d", unmet)
	}
	return err
}

// measure measures the hops of a row in turn, round by round.
func (o *options) measure(ctx context.Context, f *field, r row) (results, error) {
	out := results{}
	for round := range o.rounds {
		for _, h := range r.hops {
			fmt.Fprintf(os.Stderr, "\r%s, round %d of %d: %-24s", r.name, round+1, o.rounds, h.name)
			s, err := f.measure(ctx, r, h, o.length)
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", r.name, h.name, err)
			}
			out[h.name] = append(out[h.name], s)
		}
	}
	fmt.Fprint(os.Stderr, "\r", strings.Repeat(" ", 72), "\r")
	return out, nil
}
