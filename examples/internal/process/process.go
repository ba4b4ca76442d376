// Package process runs the programs that the demo and the tests of the
// examples are made of. It owns their start, their output and their end; it
// knows nothing of what they do.
package process

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxOutput is how many bytes of a program's output are kept: its last.
const maxOutput = 64 << 10

// Process is a running program. All methods are safe for concurrent use.
type Process struct {
	cmd    *exec.Cmd
	output tail
	ended  chan struct{}
	err    error // how it ended; read once ended is closed
}

// Start runs a program with env added to this process's environment, less all
// MICRO_ variables: a user's own settings do not reach a demonstration. The
// program does not get the terminal's Ctrl-C: who started it stops it.
func Start(env []string, name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	p.cmd.Env = append(Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.WaitDelay = time.Second // a grandchild may hold the output open
	p.cmd.SysProcAttr = detached()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Environ is this process's environment without MICRO_ variables, in which
// loopback is never reached through a web proxy.
func Environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "MICRO_") })
	return append(env, "NO_PROXY=127.0.0.1,localhost", "no_proxy=127.0.0.1,localhost")
}

// Output returns what the program printed, stdout and stderr as they came, at
// most its last 64 KiB.
func (p *Process) Output() string { return p.output.String() }

// Ended is closed once the program has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Stop asks the program to end (SIGTERM; where there are no signals it is
// killed), waits up to grace and kills it then, which is an error, as is an
// exit status other than 0. Stopping an ended program reports how it ended.
func (p *Process) Stop(grace time.Duration) error {
	if p.cmd.Process.Signal(syscall.SIGTERM) != nil {
		_ = p.cmd.Process.Kill() // fails only when it has ended
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("%s: %w", p.cmd.Path, p.err)
		}
		return nil
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("%s did not end within %v and was killed", p.cmd.Path, grace)
	}
}

// Kill ends the program at once and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended
	<-p.ended
}

// tail keeps the last bytes written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

// Write never fails.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, b...)
	if extra := len(t.data) - maxOutput; extra > 0 {
		t.data = slices.Delete(t.data, 0, extra)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}
