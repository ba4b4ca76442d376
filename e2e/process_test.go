//go:build unix

package e2e

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// patient bounds what takes as long as it takes on a loaded machine.
const patient = 30 * time.Second

// world is where a process of micro lives: which engine it finds, and its
// user's folders. Processes of one world share the engine.
type world struct {
	home   string
	env    []string
	binary string // another build than the one in [binaryVar]
}

// noConsul is where no Consul agent will ever answer.
const noConsul = "127.0.0.1:1"

// newWorld has a data directory of its own and the Consul agent at the
// address, which may be noConsul.
func newWorld(t *testing.T, consul string) world {
	t.Helper()
	dir := t.TempDir()
	return world{home: dir, env: []string{
		"PATH=" + os.Getenv("PATH"),
		"TMPDIR=" + dir,
		"HOME=" + dir,
		"CONSUL_HTTP_ADDR=" + consul,
		"MICRO_DRAIN_DELAY=0s",
		"MICRO_CLIENT_CONNECT_TIMEOUT=5s", // a node on a busy machine is no dead one
	}}
}

// with returns the world with more in its environment.
func (w world) with(env ...string) world {
	w.env = append(append([]string(nil), w.env...), env...)
	return w
}

// process is a running micro.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	out, log testserver.Output // stdout and stderr
	done     chan struct{}     // closed when it has ended
}

// micro starts the binary; the end of the test kills what is left of it.
func (w world) micro(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(cmp.Or(w.binary, os.Getenv(binaryVar)), args...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = w.env, &p.out, &p.log
	dieWithParent(p.cmd)
	started := make(chan error)
	go func() {
		// On Linux a child is told of its parent's death when the thread that
		// started it dies.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the status is in ProcessState
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("micro %s wrote to stderr:\n%s", strings.Join(args, " "), p.log.String())
		}
	})
	return p
}

// run runs a command of micro to its end.
func (w world) run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	p := w.micro(t, args...)
	return p.wait(patient), p.out.String(), p.log.String()
}

// succeed runs a command that must end well and returns what it printed.
func (w world) succeed(t *testing.T, args ...string) string {
	t.Helper()
	status, stdout, stderr := w.run(t, args...)
	if status != 0 {
		t.Fatalf("micro %s: exit status %d: %s", strings.Join(args, " "), status, stderr)
	}
	return stdout
}

// fails runs a command that must end with the status and one line that has
// part in it.
func (w world) fails(t *testing.T, status int, part string, args ...string) {
	t.Helper()
	got, stdout, stderr := w.run(t, args...)
	if got != status || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, part) {
		t.Errorf("micro %s: exit status %d, stdout %q, stderr %q; want %d and one line with %q",
			strings.Join(args, " "), got, stdout, stderr, status, part)
	}
}

// wait returns the exit status, -1 for a process that was killed.
func (p *process) wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("micro did not end within %v; it wrote:\n%s", limit, p.log.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("%v: %v", s, err)
	}
}

// kill is kill -9; it returns when the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

// pause returns when the process has stopped as SIGSTOP makes it.
func (p *process) pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	p.t.Cleanup(func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
}

// sidecar is a running sidecar.
type sidecar struct {
	*process
	addr string // of its listener
}

var listening = regexp.MustCompile(` address="?([0-9.:]+)`)

// launch starts a sidecar on a free port and reads the port from its first log
// line. It need not be ready. The test's end stops it in order: that must go
// well, too.
func (w world) launch(t *testing.T, args ...string) *sidecar {
	t.Helper()
	s := w.launchAny(t, args...)
	t.Cleanup(func() {
		if !s.running() {
			return
		}
		s.signal(syscall.SIGTERM)
		if status := s.wait(patient); status != 0 {
			t.Errorf("the sidecar ended with status %d", status)
		}
	})
	return s
}

// launchAny is launch for a sidecar that may end as it likes.
func (w world) launchAny(t *testing.T, args ...string) *sidecar {
	t.Helper()
	p := w.micro(t, append([]string{"sidecar", "--address=127.0.0.1:0"}, args...)...)
	s := &sidecar{process: p}
	within(t, patient, "the sidecar's first log line", func() bool {
		if !p.running() {
			t.Fatalf("the sidecar ended with status %d: %s", p.wait(0), p.log.String())
		}
		found := listening.FindStringSubmatch(firstLog(p.log.String()))
		if found != nil {
			s.addr = found[1]
		}
		return found != nil
	})
	return s
}

// firstLog returns the first whole line of the log, without the warnings of
// the command line before it.
func firstLog(text string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "time=") && strings.HasSuffix(line, "\n") {
			return line
		}
	}
	return ""
}

// sidecar starts a sidecar and waits until it is ready.
func (w world) sidecar(t *testing.T, args ...string) *sidecar {
	t.Helper()
	s := w.launch(t, args...)
	s.awaitReady()
	return s
}

func (s *sidecar) awaitReady() {
	s.t.Helper()
	within(s.t, patient, "the sidecar to be ready", func() bool { return s.get("/readyz").status == 200 })
}

// stop ends the sidecar in order.
func (s *sidecar) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if status := s.wait(patient); status != 0 {
		s.t.Errorf("the sidecar ended with status %d", status)
	}
}

// within polls for a condition that has no event to wait for, and returns how
// long it took.
func within(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(begun) > limit {
			t.Fatalf("waited %v for %s", limit, what)
		}
		<-tick.C
	}
	return time.Since(begun)
}

// lookPath finds a program that a test needs; CI must have it.
func lookPath(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("CI needs %s: %v", program, err)
	}
	t.Skipf("this test needs %s: %v", program, err)
	return ""
}

// output of a program that must end well.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, exit.Stderr)
	} else if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}
