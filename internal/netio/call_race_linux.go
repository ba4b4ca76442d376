//go:build race

package netio

import (
	"errors"
	"syscall"
)

// The race detector takes what is written to a socket as happening before what
// is read from one; only package syscall can tell it.

func read(fd uintptr, p []byte) (int, syscall.Errno) { return call(syscall.Read, fd, p) }

func write(fd uintptr, p []byte) (int, syscall.Errno) { return call(syscall.Write, fd, p) }

func call(f func(int, []byte) (int, error), fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, err := f(int(fd), p)
		var errno syscall.Errno
		if err == nil || !errors.As(err, &errno) {
			return n, 0
		}
		if errno != syscall.EINTR {
			return 0, errno
		}
	}
}
