// Bench measures what a sidecar costs on this machine and prints one table:
// the time from start to ready, resident memory and the size of the binary.
//
//	go run ./bench [-micro bin/micro] [-max_rss_mb 40] [-max_ready_ms 300]
//
// The exit status is 1 when a measure is over its bar. Linux only: memory is
// read from /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/internal/sleep"
)

const (
	starts  = 10
	calls   = 1000
	idle    = 5 * time.Second // before memory is read
	settled = time.Second     // between the last call and the reading
)

func main() {
	var b bench
	flag.StringVar(&b.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	maxRSS := flag.Float64("max_rss_mb", 40, "bar for resident memory in MB (10^6 bytes), 0 for none")
	maxReady := flag.Float64("max_ready_ms", 300, "bar for the time from start to ready in ms, 0 for none")
	flag.Parse()
	command.Run("bench", func(ctx context.Context) error {
		rows, err := b.run(ctx, *maxRSS, *maxReady)
		if err != nil {
			return err
		}
		return errors.Join(printTable(os.Stdout, rows), overBar(rows))
	})
}

// row is one measure; bar is what it must not exceed, 0 for none.
type row struct {
	what       string
	value, bar float64
	unit       string
}

// bench is one run.
type bench struct {
	micro string // path of the binary
	dir   string // temporary: the binary, if built, and the sidecars' data
}

// run takes all measures.
func (b *bench) run(ctx context.Context, maxRSS, maxReady float64) (rows []row, err error) {
	if err := process.Supported(); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("", "micro-bench-"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.micro, err = process.Binary(ctx, b.micro, b.dir); err != nil {
		return nil, err
	}
	binary, err := os.Stat(b.micro)
	if err != nil {
		return nil, err
	}
	ready, err := b.startToReady(ctx)
	if err != nil {
		return nil, err
	}
	before, after, err := b.memory(ctx)
	if err != nil {
		return nil, err
	}
	return []row{
		{fmt.Sprintf("start to ready, median of %d starts", starts), milliseconds(ready), maxReady, "ms"},
		{fmt.Sprintf("resident memory, idle for %v", idle), megabytes(before), maxRSS, "MB"},
		{fmt.Sprintf("resident memory, after %d RPC calls", calls), megabytes(after), maxRSS, "MB"},
		{"size of the binary", megabytes(binary.Size()), 0, "MB"},
	}, nil
}

// startToReady is the median time until /readyz says 200, each time with an
// empty data directory.
func (b *bench) startToReady(ctx context.Context) (time.Duration, error) {
	var times []time.Duration
	for range starts {
		s, err := process.Start(ctx, b.micro, b.dir)
		if err != nil {
			return 0, err
		}
		times = append(times, s.Ready)
		if err := s.Stop(); err != nil {
			return 0, err
		}
	}
	slices.Sort(times)
	return (times[(starts-1)/2] + times[starts/2]) / 2, nil
}

// memory is the resident memory in bytes of an idle sidecar, before and after
// it has carried calls.
func (b *bench) memory(ctx context.Context) (before, after int64, err error) {
	s, err := process.Start(ctx, b.micro, b.dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	if err := sleep.For(ctx, idle); err != nil {
		return 0, 0, err
	}
	if before, err = process.Resident(s.PID); err != nil {
		return 0, 0, err
	}
	if err := call(ctx, s, calls); err != nil {
		return 0, 0, err
	}
	if err := sleep.For(ctx, settled); err != nil {
		return 0, 0, err
	}
	after, err = process.Resident(s.PID)
	return before, after, err
}

func printTable(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "\tmeasured\tbar")
	for _, r := range rows {
		bar := "-"
		if r.bar > 0 {
			bar = fmt.Sprintf("%.0f %s", r.bar, r.unit)
		}
		fmt.Fprintf(w, "%s\t%.1f %s\t%s\n", r.what, r.value, r.unit, bar)
	}
	return w.Flush()
}

// overBar is the error that names the measures over their bar.
func overBar(rows []row) error {
	var errs []error
	for _, r := range rows {
		if r.bar > 0 && r.value > r.bar {
			errs = append(errs, fmt.Errorf("%s: %.1f %s is over the bar of %.0f %s", r.what, r.value, r.unit, r.bar, r.unit))
		}
	}
	return errors.Join(errs...)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }

func megabytes(n int64) float64 { return float64(n) / 1e6 }
