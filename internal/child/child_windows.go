package child

import (
	"os"
	"os/exec"
	"syscall"
)

var generateConsoleCtrlEvent = syscall.NewLazyDLL("kernel32.dll").NewProc("GenerateConsoleCtrlEvent")

// isolate puts the program into a process group of its own, so that Ctrl-C in
// our console reaches it through us alone.
func isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

// terminate sends the group Ctrl-Break, the one event that can be sent to a
// group; without a console there is no way to ask.
func terminate(p *os.Process, _ os.Signal) {
	if ok, _, _ := generateConsoleCtrlEvent.Call(syscall.CTRL_BREAK_EVENT, uintptr(p.Pid)); ok == 0 {
		_ = p.Kill() // it may have ended
	}
}

// killGroup kills the program; what it started is left alone.
func killGroup(p *os.Process) { _ = p.Kill() }

// reaper is for systems where orphans become somebody's children: there is none.
type reaper struct{}

func newReaper() *reaper { return nil }

func (*reaper) start(cmd *exec.Cmd) (<-chan int, error) { return nil, cmd.Start() }

func exitStatus(s *os.ProcessState) int { return s.ExitCode() }
