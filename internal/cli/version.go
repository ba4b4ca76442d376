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

// buildInfo says what this program is.
type buildInfo struct {
	Version  string `json:"version"`
	Platform string `json:"platform"` // "linux/amd64"
	Go       string `json:"go"`
	Revision string `json:"revision,omitempty"`
}

func build() buildInfo {
	b := buildInfo{Version: strings.TrimPrefix(version, "v"), Platform: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}

// versionLine is buildInfo for people: "micro 0.1.0 linux/amd64 go1.26 3f2a1b9c0d1e".
func versionLine() string {
	b := build()
	line := strings.Join([]string{"micro", b.Version, b.Platform, b.Go}, " ")
	if len(b.Revision) >= 12 {
		line += " " + b.Revision[:12]
	}
	return line
}

func versionCommand() command {
	return command{
		use: "version", short: "print the version", examples: []string{"micro version", "micro version --output=json"}, groups: localGroups,
		run: func(_ context.Context, i *invocation) error {
			if i.json() {
				return fail(printJSON(i.out, build()))
			}
			_, err := fmt.Fprintln(i.out, versionLine())
			return fail(err)
		},
	}
}
