//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

// binaryVar names micro for the tests. It is the environment and not a
// variable, so that a binary built elsewhere (with -race, say) can be tested.
const binaryVar = "MICRO_TEST_BINARY"

// TestMain builds micro once for all tests. Started as an application it is one.
func TestMain(m *testing.M) {
	testserver.NATSMain()
	if addr := os.Getenv(appVar); addr != "" {
		os.Exit(application(addr))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(nodeVar) != "" {
		return serveNode()
	}
	if os.Getenv(binaryVar) == "" {
		dir, err := os.MkdirTemp("", "micro-e2e-")
		if err != nil {
			return failed(err)
		}
		defer func() { _ = os.RemoveAll(dir) }() // the system cleans what stays
		path := filepath.Join(dir, "micro")
		build := exec.Command("go", "build", "-o", path, "../cmd/micro")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return failed(fmt.Errorf("build micro: %w", err))
		}
		if err := os.Setenv(binaryVar, path); err != nil {
			return failed(err)
		}
	}
	if status := m.Run(); status != 0 {
		return status
	}
	if err := goleak.Find(); err != nil {
		return failed(err)
	}
	return 0
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
