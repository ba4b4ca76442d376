//go:build !linux

package monitor

// resident is the process's memory in bytes, 0 when the system does not tell.
func resident() uint64 { return 0 }
