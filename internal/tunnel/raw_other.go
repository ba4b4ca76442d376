//go:build !unix

package tunnel

import "io"

// newRawSource returns nil: sockets of this system are not read by hand.
func newRawSource(io.Reader) source { return nil }
