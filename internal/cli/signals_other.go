//go:build !unix

package cli

import "os"

// forApplication are the signals that mean something to the application alone:
// here there are none.
func forApplication() []os.Signal { return nil }
