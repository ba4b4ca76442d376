//go:build !linux

package testserver

import "os/exec"

// dieWithParent does nothing: only Linux can do this.
func dieWithParent(*exec.Cmd) {}

// ownGroup does nothing: tests of servers that are scripts run on Linux.
func ownGroup(*exec.Cmd) {}
