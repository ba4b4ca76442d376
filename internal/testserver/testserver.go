// Package testserver starts real servers for tests: on loopback, on ports that
// the system gives, gone when the test ends. It owns finding the programs and
// their processes; it knows nothing about what is tested against them.
package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// find returns the path of a program: on PATH, else named by the environment
// variable, else in .cache/bin of the checkout. Without it the test is
// skipped, or failed where CI is set: there everything must be tested.
func find(t testing.TB, program, variable string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	if path := os.Getenv(variable); path != "" {
		return path
	}
	if root := checkout(); root != "" {
		path := filepath.Join(root, ".cache", "bin", program)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	const how = "no %s: put it on PATH or in .cache/bin of the checkout, or name it in %s"
	if os.Getenv("CI") != "" {
		t.Fatalf(how, program, variable)
	}
	t.Skipf(how, program, variable)
	return ""
}

// checkout returns the folder of go.mod above the test's, "" if there is none.
func checkout() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// tries starts a server, again when that fails: its port may linger, or be taken by
// a program that is no test.
func tries(start func() error) (err error) {
	for range 5 {
		if err = start(); err == nil {
			return nil
		}
	}
	return err
}
