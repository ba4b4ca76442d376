// Idle measures what connections that nothing happens on cost a sidecar in
// resident memory, each: WebSockets and server-sent events through the proxy,
// subscribers of its own, and kept-alive connections.
//
//	go run ./bench/idle [-micro bin/micro] [-connections 5000] [-max_kb 40]
//
// Every kind gets a sidecar of its own, whose memory is read before and after.
// Each connection carries a message first, so that what it once needed counts
// when it was kept. The exit status is 1 when a WebSocket is over its bar.
// Linux only: memory is read from /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"text/tabwriter"
	"time"

	"github.com/micro/sidecar/bench/internal/command"
	"github.com/micro/sidecar/bench/internal/process"
	"github.com/micro/sidecar/internal/sleep"
)

// settled is how long memory has to come to rest before it is read.
const settled = time.Second

func main() {
	var b bench
	flag.StringVar(&b.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.IntVar(&b.connections, "connections", 5000, "connections of each kind")
	maxKB := flag.Float64("max_kb", 40, "bar for a WebSocket through the proxy in KB (10^3 bytes), 0 for none")
	node := flag.Bool("node", false, "internal: be the node behind the sidecar")
	flag.Parse()
	command.Run("idle", func(ctx context.Context) error {
		if *node {
			return serveNode(ctx, os.Stdout)
		}
		return b.run(ctx, os.Stdout, *maxKB)
	})
}

// bench is one run.
type bench struct {
	micro       string // path of the binary
	connections int
	dir         string // temporary: the binary, if built, and the sidecars' data
}

// run measures every kind and holds the first against the bar.
func (b *bench) run(ctx context.Context, out io.Writer, bar float64) (err error) {
	if err := process.Supported(); err != nil {
		return err
	}
	if err := filesSuffice(b.connections); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "micro-idle-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.micro, err = process.Binary(ctx, b.micro, b.dir); err != nil {
		return err
	}
	node, err := startNode(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.stop()) }()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d idle connections\tbefore\tafter\teach\tbar\t\n", b.connections)
	var over error
	for i, k := range kinds {
		before, after, err := b.measure(ctx, k, node.address)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		each := float64(after-before) / float64(b.connections) / 1e3
		text := "-"
		if i == 0 && bar > 0 {
			text = fmt.Sprintf("%.0f KB", bar)
			if each > bar {
				over = fmt.Errorf("%s: %.1f KB is over the bar of %s", k.name, each, text)
			}
		}
		fmt.Fprintf(w, "%s\t%.1f MB\t%.1f MB\t%.1f KB\t%s\t\n", k.name, float64(before)/1e6, float64(after)/1e6, each, text)
	}
	return errors.Join(w.Flush(), over)
}

// measure returns the resident memory of a sidecar before and after the
// connections were opened.
func (b *bench) measure(ctx context.Context, k kind, node string) (before, after int64, err error) {
	s, err := process.Start(ctx, b.micro, b.dir, "--handler=proxy", "--log_level=warn")
	if err != nil {
		return 0, 0, err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close() // nothing more is said on it
		}
		err = errors.Join(err, s.Stop())
	}()
	if err := s.Register(ctx, "node", node, "{}"); err != nil {
		return 0, 0, err
	}
	if conns, err = openMany(ctx, s.Address, k, 1); err != nil { // all code has run once
		return 0, 0, err
	}
	if before, err = rest(ctx, s.PID); err != nil {
		return 0, 0, err
	}
	more, err := openMany(ctx, s.Address, k, b.connections)
	conns = append(conns, more...)
	if err != nil {
		return 0, 0, err
	}
	after, err = rest(ctx, s.PID)
	return before, after, err
}

// rest returns the resident memory of a process after a moment.
func rest(ctx context.Context, pid int) (int64, error) {
	if err := sleep.For(ctx, settled); err != nil {
		return 0, err
	}
	return process.Resident(pid)
}
