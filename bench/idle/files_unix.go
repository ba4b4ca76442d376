//go:build unix

package main

import (
	"fmt"
	"syscall"
)

// filesSuffice says so when the system allows fewer files than are needed: a
// tunnel is two in the sidecar. Go programs raise the soft limit by themselves.
func filesSuffice(connections int) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	if need := uint64(2*connections + 200); limit.Max < need {
		return fmt.Errorf("%d connections need %d open files, the hard limit is %d (ulimit -Hn)", connections, need, limit.Max)
	}
	return nil
}
