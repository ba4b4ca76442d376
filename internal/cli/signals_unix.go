//go:build unix

package cli

import (
	"os"
	"syscall"
)

// forApplication are the signals that mean something to the application alone.
func forApplication() []os.Signal {
	return []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH}
}
