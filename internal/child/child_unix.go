//go:build unix

package child

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

// isolate puts the program into a process group of its own, so that what a
// terminal sends to ours (SIGINT at Ctrl-C) reaches it through us alone.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
}

// terminate sends s to the whole group, as a terminal would: a shell script
// that runs the application in front does not pass signals on.
func terminate(p *os.Process, s os.Signal) {
	signal, ok := s.(syscall.Signal)
	if !ok {
		signal = syscall.SIGTERM
	}
	_ = syscall.Kill(-p.Pid, signal) // it fails when all have ended
}

// killGroup kills what is left of the program's group.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// reaper waits for every process that becomes our child, as the first process of
// a PID namespace has to, and so for the programs, too. A nil one leaves that to
// os/exec. It works as long as there are children.
type reaper struct {
	mu      sync.Mutex // held while a program starts: its end comes after that
	waiting map[int]chan<- int
	running bool
}

// newReaper returns nil where there is nothing to reap.
func newReaper() *reaper {
	if os.Getpid() != 1 {
		return nil
	}
	return &reaper{waiting: map[int]chan<- int{}}
}

// start starts a program; ended yields its exit status, nil without a reaper.
func (r *reaper) start(cmd *exec.Cmd) (ended <-chan int, err error) {
	if r == nil {
		return nil, cmd.Start() //nolint:wrapcheck // the caller makes a StartError of it
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, err //nolint:wrapcheck // the caller makes a StartError of it
	}
	status := make(chan int, 1)
	r.waiting[cmd.Process.Pid] = status
	if !r.running {
		r.running = true
		go r.run()
	}
	return status, nil
}

// run reaps until there is no child.
func (r *reaper) run() {
	for {
		var ws syscall.WaitStatus
		ended, err := syscall.Wait4(-1, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		r.mu.Lock()
		if err != nil && len(r.waiting) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		if status, ok := r.waiting[ended]; ok && err == nil {
			status <- waitStatus(ws)
			delete(r.waiting, ended)
		}
		r.mu.Unlock()
	}
}

// exitStatus is what a shell says about a program that has ended.
func exitStatus(s *os.ProcessState) int {
	if ws, ok := s.Sys().(syscall.WaitStatus); ok {
		return waitStatus(ws)
	}
	return s.ExitCode()
}

func waitStatus(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
