//go:build linux || darwin

package engine

import "syscall"

// freeSpace is how many bytes this user can still write beside path.
func freeSpace(path string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil // Bsize has another type on each system
}
