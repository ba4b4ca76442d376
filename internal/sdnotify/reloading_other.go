//go:build !linux

package sdnotify

// Reloading says that the service reads its configuration again; Ready follows
// when it has.
func Reloading() string { return reloading }
