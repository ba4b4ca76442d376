package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version is set when a release is linked:
// -ldflags "-X github.com/micro/sidecar/internal/cli.version=0.1.0".
var version = "0.1.0-dev"

// versionLine says what this program is: "micro 0.1.0 linux/amd64 go1.26 3f2a1b9c0d1e".
func versionLine() string {
	parts := []string{"micro", strings.TrimPrefix(version, "v"), runtime.GOOS + "/" + runtime.GOARCH, runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				parts = append(parts, s.Value[:12])
			}
		}
	}
	return strings.Join(parts, " ")
}

func versionCommand() command {
	return command{
		use: "version", short: "print the version", groups: noGroups,
		run: func(_ context.Context, i *invocation) error {
			_, err := fmt.Fprintln(i.out, versionLine())
			return fail(err)
		},
	}
}
