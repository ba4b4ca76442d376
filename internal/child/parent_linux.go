package child

import "syscall"

// endWithParent has the kernel ask the program to end when we are killed: it
// must not go on unregistered, and hold the port that the next one needs.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGTERM }
