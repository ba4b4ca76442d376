//go:build unix && (!linux || race)

package netio

import (
	"errors"
	"syscall"
)

// peek looks for a byte to read, and leaves it there.
func peek(fd uintptr) (errno syscall.Errno) {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	if err != nil && !errors.As(err, &errno) {
		return syscall.EINVAL
	}
	return errno
}
