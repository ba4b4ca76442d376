//go:build unix

package child

import (
	"errors"
	"os"
	"os/exec"
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

// waitForAll waits for every process that becomes our child, as the first
// process of a PID namespace has to, and returns the status of the one with the
// id pid when that ends. Others are reaped as long as there are any.
func waitForAll(pid int) (status int, ok bool) {
	found := make(chan int, 1)
	go func() {
		defer close(found)
		for {
			var ws syscall.WaitStatus
			ended, err := syscall.Wait4(-1, &ws, 0, nil)
			switch {
			case errors.Is(err, syscall.EINTR):
			case err != nil: // no child is left
				return
			case ended == pid:
				found <- waitStatus(ws)
			}
		}
	}()
	status, ok = <-found
	return status, ok
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
