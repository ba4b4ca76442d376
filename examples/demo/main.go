// Demo shows the sidecar at work: it starts one on the embedded engine and the
// Go greeter beside it, prints what a user would type, runs exactly that, and
// checks every answer.
//
//	go run ./examples/demo [-micro bin/micro] [-address 127.0.0.1:8081] [-once]
//
// It goes on until Ctrl-C, so that everything can be tried by hand; with -once,
// or ONCE set in the environment, it ends by itself. The exit status is 1 when
// anything was wrong.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run is main, with an exit status for a result.
func run() int {
	d := &demo{screen: newScreen(os.Stdout)}
	once := flag.Bool("once", os.Getenv("ONCE") != "", "end without waiting for Ctrl-C")
	flag.StringVar(&d.micro, "micro", "", "`path` of the micro binary; without it, one is built")
	flag.StringVar(&d.address, "address", "127.0.0.1:8081", "`host:port` where the sidecar listens")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flag.Arg(0))
		return 2
	}
	if err := free(d.address); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()

	err := d.show(ctx)
	if err == nil && !*once {
		d.tryYourself()
		err = d.wait(ctx)
		d.screen.line("\nStopping.")
	}
	interrupted := ctx.Err() != nil && err != nil
	status := 0
	if err != nil && !interrupted {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		status = 1
	}
	if err := d.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		status = 1
	}
	if interrupted {
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		status = 1
	}
	return status
}

// free reports whether the address can be listened on.
func free(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%w; is a sidecar running there already? -address chooses another place", err)
	}
	return l.Close()
}
