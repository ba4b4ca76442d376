//go:build unix

package child

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patient bounds what takes as long as it takes.
const patient = 30 * time.Second

// sh starts a shell script that says "ready" when it is.
func sh(t *testing.T, script string, env ...string) (*Process, *testserver.Output) {
	t.Helper()
	var out testserver.Output
	p, err := New([]string{"sh", "-c", script}, Options{Env: os.Environ(), Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(env...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done() })
	return p, &out
}

// said waits until the program has said text.
func said(t *testing.T, out *testserver.Output, text string) {
	t.Helper()
	eventually(t, "the program to say "+text, func() bool { return strings.Contains(out.String(), text) })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patient); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// ended waits for the program's end and compares its status.
func ended(t *testing.T, p *Process, want int) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patient):
		t.Fatal("it does not end")
	}
	if status, ok := p.Ended(); !ok || status != want {
		t.Errorf("exit status %d, %v, want %d", status, ok, want)
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestExitStatus(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		p, _ := sh(t, script)
		ended(t, p, want)
		if err := errors.Join(p.Signal(syscall.SIGUSR1), p.Stop(t.Context(), syscall.SIGTERM)); err != nil {
			t.Errorf("after its end: %v", err)
		}
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	dir := t.TempDir()
	plain, broken := filepath.Join(dir, "plain"), filepath.Join(dir, "broken")
	for path, mode := range map[string]os.FileMode{plain: 0o600, broken: 0o700} {
		if err := os.WriteFile(path, []byte("no program"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]struct {
		status int
		says   string
	}{
		"no-such-program":  {127, "start no-such-program: executable file not found in $PATH"},
		dir + "/not-there": {127, "no such file or directory"},
		plain:              {126, "permission denied"},
		dir:                {126, "start " + dir + ": "},
		broken:             {126, "exec format error"},
	} {
		p, err := New([]string{name}, Options{})
		if err == nil {
			err = p.Start()
		}
		failed, ok := errors.AsType[*StartError](err)
		if !ok || failed.Status != want.status || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want status %d and %q", name, err, want.status, want.says)
		}
	}
}

func TestEnvironment(t *testing.T) {
	p, out := sh(t, `echo "$MICRO_SIDECAR_URL"`, "MICRO_SIDECAR_URL=http://here")
	ended(t, p, 0)
	if out.String() != "http://here\n" {
		t.Errorf("it said %q", out)
	}
}

// A signal goes to the program; the end to its whole group.
func TestSignals(t *testing.T) {
	p, out := sh(t, `trap 'echo usr1' USR1; trap 'echo hup' HUP; trap 'echo int; exit 3' INT; sleep 1000 & echo ready; while :; do wait; done`)
	said(t, out, "ready")
	for signal, text := range map[os.Signal]string{syscall.SIGUSR1: "usr1", syscall.SIGHUP: "hup"} {
		if err := p.Signal(signal); err != nil {
			t.Error(err)
		}
		said(t, out, text)
	}
	if err := p.Stop(within(t, patient), syscall.SIGINT); err != nil {
		t.Error(err)
	}
	ended(t, p, 3)
}

func TestOneThatDoesNotWantToEnd(t *testing.T) {
	p, out := sh(t, `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	said(t, out, "ready")
	if err := p.Stop(within(t, 100*time.Millisecond), syscall.SIGTERM); err == nil {
		t.Error("that it was killed is no error")
	}
	ended(t, p, 137)
}

// What the program leaves in its group ends with it.
func TestNothingIsLeft(t *testing.T) {
	p, out := sh(t, `sh -c 'trap "" TERM; echo pid $$; while :; do sleep 0.05; done' & while :; do sleep 0.05; done`)
	said(t, out, "pid ")
	eventually(t, "the whole line", func() bool { return strings.HasSuffix(out.String(), "\n") })
	left, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(out.String(), "pid ")))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(within(t, patient), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	ended(t, p, 143)
	eventually(t, "the rest of the group to be gone", func() bool { return gone(left) })
}

// gone reports whether no process has the id, or only its remains.
func gone(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err != nil || strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}
