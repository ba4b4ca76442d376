// Package child runs other programs: it starts each in a process group of its
// own, sends them signals, ends them within a time, and knows their exit status
// as a shell would. When this process is the first of its PID namespace, as in a
// container, it also reaps what others leave behind. It decides nothing: when
// the programs start and end is the caller's affair.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// The exit statuses of shells for a program that cannot be run (POSIX, Shell
// Command Language, section 2.8.2).
const (
	statusNotExecutable = 126
	statusNotFound      = 127
)

// pipeDelay bounds the wait for output that comes through a pipe of ours, when
// something that the program started keeps it open.
const pipeDelay = time.Second

// StartError says why a program could not be started.
type StartError struct {
	// Status is the exit status of a shell in that case: 126 or 127.
	Status int
	err    error
}

// Error says which program, and why.
func (e *StartError) Error() string { return e.err.Error() }

// Unwrap returns the system's error.
func (e *StartError) Unwrap() error { return e.err }

// Options are what the program is given.
type Options struct {
	Env    []string // "NAME=value" entries, as os.Environ gives them
	Stdin  io.Reader
	Stdout io.Writer // an *os.File is handed on as it is, without a copy
	Stderr io.Writer
}

// Process is a program that may be started once. Its methods are safe for
// concurrent use.
type Process struct {
	cmd     *exec.Cmd
	reaper  *reaper       // nil unless this process is the first one
	started chan struct{} // closed when it runs
	done    chan struct{} // closed when it has ended
	status  int
}

// New finds the program that args name, as a shell would. The error is a
// *[StartError].
func New(args []string, o Options) (*Process, error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return nil, startError(args[0], err)
	}
	cmd := &exec.Cmd{Path: path, Args: args, Env: o.Env, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, WaitDelay: pipeDelay}
	return &Process{cmd: cmd, started: make(chan struct{}), done: make(chan struct{})}, nil
}

// startError tells a program that is not there from one that cannot be run.
func startError(name string, err error) *StartError {
	status := statusNotExecutable
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		status = statusNotFound
	}
	if lookup, ok := errors.AsType[*exec.Error](err); ok {
		err = lookup.Err
	}
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = path.Err
	}
	return &StartError{status, fmt.Errorf("start %s: %w", name, err)}
}

// Start starts the program, with env added to its environment. It is called
// once. The error is a *[StartError].
func (p *Process) Start(env ...string) error {
	p.cmd.Env = append(p.cmd.Env[:len(p.cmd.Env):len(p.cmd.Env)], env...)
	isolate(p.cmd)
	failed := make(chan error)
	go func() {
		// Linux tells a child of its parent's death when the thread dies that
		// started it: this one lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		ended, err := p.reaper.start(p.cmd)
		if err != nil {
			failed <- startError(p.cmd.Args[0], err)
			return
		}
		close(p.started)
		close(failed)
		p.status = wait(p.cmd, ended)
		killGroup(p.cmd.Process)
		close(p.done)
	}()
	return <-failed
}

// Started reports whether the program was started.
func (p *Process) Started() bool {
	select {
	case <-p.started:
		return true
	default:
		return false
	}
}

// Name is the program as it was named.
func (p *Process) Name() string { return p.cmd.Args[0] }

// Pid returns the id of the started program's process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the program has ended, and with which exit status: 128
// and the signal's number when a signal ended it.
func (p *Process) Ended() (status int, ended bool) {
	select {
	case <-p.done:
		return p.status, true
	default:
		return 0, false
	}
}

// Signal sends the program, and nobody else in its group, a signal. Before its
// start and after its end nothing happens.
func (p *Process) Signal(s os.Signal) error {
	if _, ended := p.Ended(); ended || !p.Started() {
		return nil
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal the application: %w", err)
	}
	return nil
}

// Stop ends the program and its group: s asks for it; when ctx ends, they are
// killed. It returns when the program has ended; the error says that it had to
// be killed.
func (p *Process) Stop(ctx context.Context, s os.Signal) error {
	if !p.Started() {
		return nil
	}
	if _, ended := p.Ended(); !ended {
		terminate(p.cmd.Process, s)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	p.Kill()
	<-p.done
	return errors.New("the application did not end in time and was killed")
}

// Kill ends the program and its group at once.
func (p *Process) Kill() {
	if _, ended := p.Ended(); !ended && p.Started() {
		killGroup(p.cmd.Process)
	}
}

// wait returns the exit status of the program when it has ended; reaped yields it
// when there is a reaper.
func wait(cmd *exec.Cmd, reaped <-chan int) int {
	if reaped != nil {
		return <-reaped
	}
	_ = cmd.Wait() // the status is in ProcessState; pipes that stay open are nobody's error
	return exitStatus(cmd.ProcessState)
}
