package process

import "syscall"

// detached puts the program in a process group of its own, out of reach of
// the console's Ctrl-C.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
