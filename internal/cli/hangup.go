package cli

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/micro/sidecar/internal/certs"
)

// lookOnHangup has the certificate files looked at when SIGHUP comes, as hooks of
// programs that renew certificates send it, until stop is called. Without files
// the signal does what it always did.
func lookOnHangup(files *certs.FromFiles) (stop func()) {
	if files == nil {
		return func() {}
	}
	come, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(come, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-come:
				files.Look()
			case <-ended:
				return
			}
		}
	}()
	return func() { signal.Stop(come); close(ended) }
}
