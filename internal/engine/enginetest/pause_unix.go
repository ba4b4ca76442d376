//go:build unix

package enginetest

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// Pause stops the process as SIGSTOP does, until Continue, and returns when it
// has stopped.
func (p *Process) Pause() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !p.paused(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatal("the helper process does not stop")
		}
	}
}

// paused asks the system for the process's state.
func (p *Process) paused() bool {
	p.t.Helper()
	pid := strconv.Itoa(p.PID)
	if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil {
		_, state, _ := bytes.Cut(stat, []byte(") "))
		return bytes.HasPrefix(state, []byte("T"))
	}
	state, err := exec.Command("ps", "-o", "state=", "-p", pid).Output()
	if err != nil {
		p.t.Fatalf("ps: %v", err)
	}
	return bytes.HasPrefix(bytes.TrimSpace(state), []byte("T"))
}

// Continue lets a paused process run on.
func (p *Process) Continue() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
}
