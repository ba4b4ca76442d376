package testserver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

// process is a running child.
type process struct {
	child *os.Process
	ended chan struct{} // closed when it is gone
	out   *output
}

// start runs the command. The thread that starts it stays with it, because on
// Linux a child is told of its parent's death when that thread dies.
func start(cmd *exec.Cmd) (*process, error) {
	dieWithParent(cmd)
	return run(cmd)
}

// startGroup is start for a script that runs others: killGroup ends them all.
func startGroup(cmd *exec.Cmd) (*process, error) {
	ownGroup(cmd)
	cmd.WaitDelay = time.Second // others may hold its output
	return run(cmd)
}

func run(cmd *exec.Cmd) (*process, error) {
	p := &process{ended: make(chan struct{}), out: new(output)}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.child = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is of no interest: it is killed
			close(p.ended)
		}
	}()
	return p, <-started
}

// startTimeout bounds the start of a server. A loaded machine with the race
// detector needs most of it.
const startTimeout = 60 * time.Second

// await waits until answers finds that the server is ready. The error says why
// it is not, and what it printed.
func (p *process) await(limit time.Duration, answers func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	err := errors.New("it was never asked")
	for {
		select {
		case <-p.ended: // before it is asked: another may answer in its place
			return fmt.Errorf("it has ended; it printed:\n%s", p.out)
		case <-deadline:
			return fmt.Errorf("not ready after %v: %w; it printed:\n%s", limit, err, p.out)
		case <-tick.C:
		}
		if err = answers(); err == nil {
			return nil
		}
	}
}

// kill ends the process without warning and returns when it is gone.
func (p *process) kill() {
	_ = p.child.Kill() // fails only if it is gone
	<-p.ended
}

// output keeps the end of what a process prints.
type output struct {
	mu   sync.Mutex
	tail []byte
}

func (o *output) Write(b []byte) (int, error) {
	const keep = 16 << 10
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, b...)
	if len(o.tail) > keep {
		o.tail = bytes.Clone(o.tail[len(o.tail)-keep:])
	}
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.tail)
}
