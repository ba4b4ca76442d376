package testserver

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the child when the test binary dies
// without having cleaned up.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// ownGroup puts the child and its children into a group of their own. A script
// is asked to end when the test binary dies, so that it can end what it runs.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
