package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/micro/sidecar/internal/sidecar"
)

func sidecarCommand() command {
	return command{
		use: "sidecar", short: "run the sidecar until SIGINT or SIGTERM",
		groups: sidecarGroups, child: true, run: runSidecar,
	}
}

func runSidecar(ctx context.Context, i *invocation) error {
	if err := i.cfg.finishSidecar(i.given); err != nil {
		return err
	}
	if err := i.cfg.finishACME(i.given, i.dataDir()); err != nil {
		return err
	}
	info := slog.LevelInfo
	log := i.logger(&info)
	cfg := i.cfg.Sidecar
	cfg.Observe.Version = build().Version
	cfg.Engines.Host = true
	cfg.Engines.DataDir = i.dataDir()
	if mayEmbed(cfg.Engines) {
		dir, remove, err := usableDir(cfg.Engines.DataDir)
		if err != nil {
			return fail(err)
		}
		defer remove()
		if dir != cfg.Engines.DataDir {
			// Not through the log, whose first line tells the address.
			i.say("data_dir %s is not writable: using the temporary %s, nothing in it outlives this process",
				orDash(cfg.Engines.DataDir), dir)
		}
		cfg.Engines.Temporary = dir != cfg.Engines.DataDir
		cfg.Engines.DataDir = dir
	}
	defer lookOnHangup(cfg.Certificates)()
	return fail(sidecar.Run(ctx, cfg, i.drivers, log))
}

// mayEmbed reports whether the embedded engine may be used.
func mayEmbed(e sidecar.Engines) bool {
	return e.Registry == "" || e.Registry == "embedded" || e.Broker == "embedded"
}

// dataDir is --data_dir, or where the user's state lives; "" when the machine
// does not say where that is.
func (i *invocation) dataDir() string {
	if dir := i.cfg.Sidecar.Engines.DataDir; dir != "" {
		if absolute, err := filepath.Abs(dir); err == nil {
			return absolute
		}
		return dir // the present folder is gone: whoever uses it says so
	}
	if state := i.env.get("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "micro")
	}
	if local := i.env.get("LocalAppData"); runtime.GOOS == "windows" && local != "" {
		return filepath.Join(local, "micro")
	}
	if home := i.env.get("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "micro")
	}
	return ""
}

// usableDir makes dir and returns it, or a temporary one when nothing can be
// written there. remove takes the temporary one away again.
func usableDir(dir string) (usable string, remove func(), err error) {
	if dir != "" && writable(dir) {
		return dir, func() {}, nil
	}
	temporary, err := os.MkdirTemp("", "micro-")
	if err != nil {
		return "", nil, fmt.Errorf("data_dir %s is not writable, and there is no temporary one: %w", dir, err)
	}
	// What is left in a temporary folder is the system's to clean.
	return temporary, func() { _ = os.RemoveAll(temporary) }, nil
}

// writable reports whether files can be made in dir, and makes dir for that.
func writable(dir string) bool {
	if os.MkdirAll(dir, 0o700) != nil {
		return false
	}
	probe, err := os.CreateTemp(dir, ".writable-")
	if err != nil {
		return false
	}
	closed := probe.Close()
	return os.Remove(probe.Name()) == nil && closed == nil
}
