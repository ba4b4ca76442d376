// Messaging measures what messages cost through a sidecar on the embedded
// engine, and in the same run what the engine does by itself, which is the
// ceiling:
//
//	go run ./bench/messaging [-micro bin/micro] [-length 5s]
//
// It prints each figure beside its bar. The exit status is 1 when a bar is not
// met. One machine: the load, the sidecar and the engine share its processors.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
)

// options are the flags.
type options struct {
	micro       string
	length      time.Duration
	connections int
	subscribers int
	body        int
	profiles    string
}

func main() {
	var o options
	flag.StringVar(&o.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.DurationVar(&o.length, "length", 5*time.Second, "length of one measurement")
	flag.IntVar(&o.connections, "connections", 64, "connections that publish")
	flag.IntVar(&o.subscribers, "subscribers", 100, "WebSocket subscribers of the fan-out")
	flag.IntVar(&o.body, "body", 200, "bytes of a message")
	flag.StringVar(&o.profiles, "profiles", "", "`folder` for a CPU profile of the sidecar during each measurement")
	flag.Parse()
	command.Run("messaging", func(ctx context.Context) error {
		rows, err := run(ctx, o)
		if err != nil {
			return err
		}
		return errors.Join(printTable(os.Stdout, rows), missed(rows))
	})
}

// row is one measure. least says that the bar is the least that it should be,
// else it is the most; 0 is no bar.
type row struct {
	what       string
	value, bar float64
	unit       string
	least      bool
}

func (r row) met() bool {
	return r.bar == 0 || r.least && r.value >= r.bar || !r.least && r.value <= r.bar
}

func run(ctx context.Context, o options) (rows []row, err error) {
	if o.length <= 0 || o.connections < 1 || o.subscribers < 1 || o.body < 1 {
		return nil, errors.New("every flag must be positive")
	}
	dir, err := os.MkdirTemp("", "micro-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.micro, err = process.Binary(ctx, o.micro, dir); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	app, err := startApplication()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, app.server.Close()) }()
	args, admin := append([]string{"--data_dir=" + data}, app.subscriptions()...), ""
	if o.profiles != "" {
		if admin, err = freeAddress(); err != nil {
			return nil, err
		}
		args = append(args, "--admin_address="+admin)
	}
	s, err := process.Start(ctx, o.micro, dir, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	m := &measurement{options: o, sidecar: s, application: app}
	if err := m.open(ctx, data); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	for _, measure := range []struct {
		name string
		run  func(context.Context) ([]row, error)
	}{
		{"publish", m.publish},
		{"publish-engine", m.publishEngine},
		{"publish-batches", m.publishBatches},
		{"acknowledge", m.endToEnd},
		{"acknowledge-engine", m.endToEndEngine},
		{"push", m.push},
		{"push-ordered", m.pushOrdered},
		{"fan-out", m.fanOut},
		{"latency", m.latency},
	} {
		written := profile(admin, filepath.Join(o.profiles, measure.name+".pprof"), o.length)
		more, err := measure.run(ctx)
		err = errors.Join(err, <-written)
		if err != nil {
			return rows, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// profile writes the sidecar's CPU profile of that time to a file and then
// sends what went wrong. Without an address there is none.
func profile(admin, file string, length time.Duration) <-chan error {
	done := make(chan error, 1)
	if admin == "" {
		done <- nil
		return done
	}
	go func() {
		resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, max(int(length.Seconds()), 1)))
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = resp.Body.Close() }()
		data, err := io.ReadAll(resp.Body)
		done <- errors.Join(err, os.WriteFile(file, data, 0o644))
	}()
	return done
}

func printTable(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tvalue\tbar\t")
	for _, r := range rows {
		bar := "-"
		if r.bar > 0 {
			sign, word := "≤", "met"
			if r.least {
				sign = "≥"
			}
			if !r.met() {
				word = "NOT MET"
			}
			bar = fmt.Sprintf("%s %g %s: %s", sign, r.bar, r.unit, word)
		}
		fmt.Fprintf(w, "%s\t%.6g %s\t%s\t\n", r.what, r.value, r.unit, bar)
	}
	return w.Flush()
}

// missed is the error that names what does not meet its bar.
func missed(rows []row) error {
	var errs []error
	for _, r := range rows {
		if !r.met() {
			errs = append(errs, fmt.Errorf("%s: %.6g %s, the bar is %g", r.what, r.value, r.unit, r.bar))
		}
	}
	return errors.Join(errs...)
}
