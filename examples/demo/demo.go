package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/micro/sidecar/examples/internal/process"
)

const (
	startLimit = 30 * time.Second // for anything to come up
	stopLimit  = 15 * time.Second // for one program to end
)

// demo is one run of the demonstration.
type demo struct {
	screen  *screen
	micro   string // path of the binary, as the user may type it
	address string // of the sidecar, "host:port"

	dir      string // temporary: binaries and the sidecar's data
	sidecar  *process.Process
	children []*process.Process // in the order they were started
	err      error              // the first thing that went wrong; nothing is done after it
}

// show does everything that ends by itself.
func (d *demo) show(ctx context.Context) error {
	d.start(ctx)
	d.discovery(ctx)
	d.rpc(ctx)
	d.proxy(ctx)
	d.messages(ctx)
	d.byHand(ctx)
	d.watching(ctx)
	if d.err == nil {
		d.screen.good("All of it as it should be.")
	}
	return d.err
}

// do shows a command, runs it, shows its answer and checks it.
func (d *demo) do(ctx context.Context, c command, right check) {
	if d.err != nil {
		return
	}
	d.screen.command(c.String())
	got, err := c.run(ctx)
	if err != nil {
		d.err = fmt.Errorf("%s: %w", c, err)
		return
	}
	d.screen.answer(got.text)
	if err := right(got); err != nil {
		d.err = fmt.Errorf("%s\nanswered %q (status %d): %w\n%s", c, got.text, got.status, err, d.log())
	}
}

// start builds what is missing and brings up the sidecar and the two greeters.
func (d *demo) start(ctx context.Context) {
	if d.dir, d.err = os.MkdirTemp("", "micro-demo-"); d.err != nil {
		return
	}
	const greeter = "examples/greeter/go/"
	packages := []string{greeter + "rpcserver", greeter + "webserver"}
	if d.micro == "" {
		packages = append(packages, "cmd/micro")
		d.micro = filepath.Join(d.dir, "micro")
	}
	d.screen.heading("Building the greeter")
	if d.err = process.Build(ctx, d.dir, packages...); d.err != nil {
		return
	}

	d.screen.heading("A sidecar, with nothing else installed, and a greeter beside it")
	began := time.Now()
	d.sidecar = d.background("", d.micro, process.SidecarArgs(d.address, filepath.Join(d.dir, "data"))...)
	if d.err != nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if d.err = process.Ready(limited, d.sidecar, d.address); d.err != nil {
		return
	}
	d.screen.answer(fmt.Sprintf("ready after %d ms", time.Since(began).Milliseconds()))
	for _, name := range []string{"rpcserver", "webserver"} {
		d.background("go run ./"+greeter+name, filepath.Join(d.dir, name))
	}
	d.registered(limited, "go.micro.srv.greeter")
	d.registered(limited, "go.micro.srv.greeterweb")
	if d.err == nil {
		d.screen.answer("both registered themselves: POST /registry?ttl=30s, renewed every 10 s")
	}
}

// background starts a program that stays, shown as line, or as what it is.
func (d *demo) background(line, name string, args ...string) *process.Process {
	if d.err != nil {
		return nil
	}
	if line == "" {
		line = typed(name, args...)
	}
	d.screen.command(line + " &")
	p, err := process.Start([]string{"SIDECAR=" + d.url("")}, name, args...)
	if err != nil {
		d.err = err
		return nil
	}
	d.children = append(d.children, p)
	return p
}

// registered waits until the sidecar knows the service.
func (d *demo) registered(ctx context.Context, service string) {
	ask := get(d.url("/registry?service=" + service))
	d.until(ctx, service+" is not in the registry", func() bool {
		got, err := ask.viaHTTP(ctx)
		return err == nil && got.status == http.StatusOK
	})
}

// until waits for a condition.
func (d *demo) until(ctx context.Context, otherwise string, condition func() bool) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d.err == nil && !condition() {
		select {
		case <-ctx.Done():
			d.err = fmt.Errorf("%s (%w)\n%s", otherwise, ctx.Err(), d.log())
		case <-d.sidecar.Ended():
			d.err = fmt.Errorf("the sidecar ended\n%s", d.log())
		case <-tick.C:
		}
	}
}

// wait blocks until Ctrl-C, which is no error, or the sidecar's end.
func (d *demo) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.sidecar.Ended():
		return fmt.Errorf("the sidecar ended\n%s", d.log())
	}
}

// stop ends what was started, the sidecar last so that the others can still
// deregister, and removes the temporary folder.
func (d *demo) stop() error {
	var errs []error
	for _, p := range slices.Backward(d.children) {
		errs = append(errs, p.Stop(stopLimit))
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}

func (d *demo) url(path string) string { return "http://" + d.address + path }

// log is the end of what the sidecar printed.
func (d *demo) log() string {
	if d.sidecar == nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(d.sidecar.Output()), "\n")
	return "the sidecar's log:\n  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
}
