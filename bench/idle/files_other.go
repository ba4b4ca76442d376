//go:build !unix

package main

// filesSuffice has nothing to say: this system is not measured.
func filesSuffice(int) error { return nil }
