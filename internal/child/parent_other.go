//go:build unix && !linux

package child

import "syscall"

// endWithParent does nothing: this system cannot tell a program of its parent's
// death.
func endWithParent(*syscall.SysProcAttr) {}
