package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/micro/sidecar/internal/child"
	"github.com/micro/sidecar/internal/sdnotify"
	"github.com/micro/sidecar/internal/sidecar"
)

func sidecarCommand() command {
	return command{
		use: "sidecar", short: "run the sidecar until SIGINT or SIGTERM",
		long: "With -- CMD ARG… it also runs CMD as the application, passes signals on to it\nand ends with its exit status.",
		examples: []string{
			"micro sidecar",
			"micro sidecar --server_name=foo --server_address=127.0.0.1:9090 \\\n    --healthcheck_url=http://127.0.0.1:9090/health",
			"micro sidecar --server_name=foo --server_address=127.0.0.1:9090 \\\n    -- python3 app.py",
			"micro sidecar --config=micro.yaml",
		},
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
	application, children, err := i.children()
	if err != nil {
		return err
	}
	manager, err := sdnotify.New(i.env.get)
	if err != nil {
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
	reloading := newReloader(i, log)
	stop := reloading.watch()
	defer stop()
	rotated := i.passSignals(children, reloading)
	cfg.Control = sidecar.Control{Child: application, Children: children, Changes: reloading.changes, Rotated: rotated, Manager: manager}
	defer time.AfterFunc(startingTime, debug.FreeOSMemory).Stop()
	return exited(children, sidecar.Run(ctx, cfg, i.drivers, log))
}

// startingTime is after how long what starting took in memory, some megabytes,
// is given back. The garbage collector by itself would get round to it in
// minutes, and until then let the heap grow to twice that size.
const startingTime = time.Second

// children makes the program of what stands after --, nil for nothing, and those
// of the applications in the file; all of them are in the group.
func (i *invocation) children() (application *child.Process, all *child.Group, err error) {
	o := child.Options{Stdout: i.out, Stderr: i.err}
	for _, entry := range i.env {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(sdnotify.Variables(), name) {
			o.Env = append(o.Env, entry)
		}
	}
	var list []*child.Process
	if len(i.cfg.command) > 0 {
		if application, err = child.New(i.cfg.command, i.withStdin(o)); err != nil {
			return nil, nil, exited(nil, err)
		}
		list = append(list, application)
	}
	apps := i.cfg.Sidecar.Applications
	for n := range apps {
		if len(apps[n].Command) == 0 {
			continue
		}
		if apps[n].Child, err = child.New(apps[n].Command, o); err != nil {
			return nil, nil, exited(nil, err)
		}
		list = append(list, apps[n].Child)
	}
	return application, child.NewGroup(list...), nil
}

// withStdin hands standard input on, unless it is a terminal: who reads that from
// outside its foreground group is stopped by it.
func (i *invocation) withStdin(o child.Options) child.Options {
	if file, ok := i.in.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 {
			o.Stdin = file
		}
	}
	return o
}

// passSignals says what becomes of the signals that end nothing. rotated yields
// when the access log is to be opened anew.
func (i *invocation) passSignals(children *child.Group, reloading *reloader) (rotated <-chan struct{}) {
	var which []os.Signal
	// Programs that renew certificates or move logs away send SIGHUP, too.
	certificates, rotate := i.cfg.Sidecar.Certificates, make(chan struct{}, 1)
	accessLog := i.cfg.Sidecar.Observe.AccessLog.Path
	reloads := reloading.possible() || certificates != nil || accessLog != "" && accessLog != "-"
	if reloads || children != nil && !i.signals.ignoresHangup() {
		which = append(which, syscall.SIGHUP)
	}
	if children != nil {
		which = append(which, forApplication()...)
		i.signals.beforeAbort(children.Kill)
	}
	i.signals.handle(func(s os.Signal) {
		if s == syscall.SIGHUP {
			reloading.ask()
			if certificates != nil {
				certificates.Look()
			}
			select {
			case rotate <- struct{}{}:
			default: // it will be in a moment
			}
		}
		if s != syscall.SIGHUP || !i.signals.ignoresHangup() {
			_ = children.Signal(s) // they may have ended a moment ago
		}
	}, which...)
	return rotate
}

// exited is the end of the sidecar: with the status of its children, when they ran.
func exited(children *child.Group, err error) error {
	if failed, ok := errors.AsType[*child.StartError](err); ok {
		return &exit{failed.Status, err}
	}
	status, ran := children.Status()
	if !ran || status == exitOK {
		return fail(err)
	}
	return &exit{status, err}
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
