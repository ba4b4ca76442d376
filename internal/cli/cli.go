// Package cli is the command line of micro: it owns the flags, the environment
// and the configuration file, makes one validated [Config] of them, and runs
// the commands. It owns the process's signals and standard streams, too, but
// never exits: that is main's. How a sidecar is put together is the affair of
// internal/sidecar.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"github.com/micro/sidecar/internal/messaging"
	"github.com/micro/sidecar/internal/sidecar"
)

// The exit statuses of micro.
const (
	exitOK      = 0
	exitFailure = 1 // the command was understood and failed
	exitUsage   = 2 // nothing was started
)

// Run runs the command in args (without the program's name) with the
// environment env ("NAME=value" entries, as os.Environ gives them) and returns
// the exit status. SIGINT, SIGTERM or SIGHUP ends the command in order, unless
// the command has another use for SIGHUP; a second one makes Run return at once,
// with the command still running behind it.
func Run(args, env []string, stdin io.Reader, stdout, stderr io.Writer, d sidecar.Drivers) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	sig := newSignals()
	defer sig.stop()

	done := make(chan int, 1)
	go func() {
		done <- run(ctx, args, &streams{env: environment(env), in: stdin, out: stdout, err: stderr, signals: sig}, d)
	}()
	for stopping := false; ; {
		select {
		case status := <-done:
			return status
		case s := <-sig.come:
			switch {
			case sig.used(s):
			case stopping:
				sig.abort()
				return interrupted(s)
			default:
				stopping = true
				sig.settle()
				cancel(&sidecar.Signal{Signal: s})
			}
		}
	}
}

// run is Run without the signals: ctx ends the command in order.
func run(ctx context.Context, args []string, s *streams, d sidecar.Drivers) int {
	app := &app{streams: s, drivers: d, settings: settingsTable()}
	err := app.choose(ctx, args)
	if err == nil && app.chosen != nil {
		err = app.chosen(ctx)
	}
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exit](err); ok {
		if e.err != nil {
			s.say("%v", e.err)
		}
		return e.status
	}
	s.say("%s", messaging.Unsupported(err))
	if _, ok := errors.AsType[*failure](err); ok {
		return exitFailure
	}
	return exitUsage
}

// choose finds the command that args ask for. It runs only afterwards: the tree
// of commands, a megabyte with all its flags, is not needed while a sidecar
// lives.
func (a *app) choose(ctx context.Context, args []string) error {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return root.ExecuteContext(ctx)
}

// Broken says that this build's own table is wrong, and returns the exit status.
func Broken(stderr io.Writer, err error) int {
	(&streams{err: stderr}).say("this build cannot be used: %v", err)
	return exitUsage
}

// interrupted is the shell's exit status for a process that a signal ended.
func interrupted(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return exitFailure
}

// failure marks an error of a command that was used rightly. Every other
// error is a mistake in its use.
type failure struct{ err error }

// Error returns the error's own text.
func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the error.
func (f *failure) Unwrap() error { return f.err }

// fail marks err as a failure; nil stays nil.
func fail(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err}
}

// exit is the end of a command with a status of its own.
type exit struct {
	status int
	err    error // nil when there is nothing to say
}

// Error returns the error's own text.
func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

// Unwrap returns the error.
func (e *exit) Unwrap() error { return e.err }

// streams is what the process gives to a command.
type streams struct {
	env environment
	in  io.Reader
	out io.Writer // what machines read
	err io.Writer // sentences for people, and the log

	signals *signals // nil when there are none, as in tests
}

// say writes one line to stderr.
func (s *streams) say(format string, args ...any) {
	fmt.Fprintf(s.err, "micro: %s\n", oneLine(fmt.Sprintf(format, args...)))
}

// oneLine joins the lines of an error's text.
func oneLine(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines, "; ")
}

// environment is a process's environment, "NAME=value" each.
type environment []string

// get returns the variable's value, "" when it is not set. Of several entries
// the last counts, as in os/exec.
func (e environment) get(name string) string {
	for i := len(e) - 1; i >= 0; i-- {
		if key, value, ok := strings.Cut(e[i], "="); ok && key == name {
			return value
		}
	}
	return ""
}
