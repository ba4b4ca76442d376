package process

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"time"
)

// Build compiles packages of this module into the folder dir.
func Build(ctx context.Context, dir string, packages ...string) error {
	args := []string{"build", "-o", dir + "/"}
	for _, p := range packages {
		args = append(args, "github.com/micro/sidecar/"+p)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// SidecarArgs are micro's arguments for a sidecar that needs nothing but the
// folder data.
func SidecarArgs(address, data string) []string {
	return []string{
		"sidecar", "--address=" + address, "--registry=embedded", "--broker=embedded",
		"--data_dir=" + data, "--enable_stats",
	}
}

// Ready waits until the sidecar p at address ("host:port") says that it is
// ready, p ends, or ctx ends.
func Ready(ctx context.Context, p *Process, address string) error {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	last := "no answer"
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if resp, err := client.Get("http://" + address + "/readyz"); err == nil {
			detail, _ := io.ReadAll(resp.Body) // only to report it
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = fmt.Sprintf("%s %s", resp.Status, detail)
		}
		select {
		case <-p.Ended():
			return fmt.Errorf("the sidecar ended: %s", p.Output())
		case <-ctx.Done():
			return fmt.Errorf("the sidecar is not ready (%s): %s", last, p.Output())
		case <-tick.C:
		}
	}
}
