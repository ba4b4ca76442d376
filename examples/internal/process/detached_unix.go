//go:build unix

package process

import "syscall"

// detached puts the program in a process group of its own, out of reach of
// the terminal's Ctrl-C.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
