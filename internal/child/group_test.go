//go:build unix

package child

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// group starts a shell script for each program.
func group(t *testing.T, scripts ...string) (*Group, *testserver.Output) {
	t.Helper()
	var out testserver.Output
	var all []*Process
	for _, script := range scripts {
		p, err := New([]string{"sh", "-c", script}, Options{Env: os.Environ(), Stdout: &out, Stderr: &out})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	g := NewGroup(all...)
	started := 0
	if err := g.Start(func(*Process) { started++ }, "WHO=group"); err != nil || started != len(scripts) {
		t.Fatalf("%d started: %v", started, err)
	}
	t.Cleanup(func() {
		g.Kill()
		for _, p := range all {
			<-p.Done()
		}
	})
	return g, &out
}

// The first that ends by itself counts, whatever becomes of the others.
func TestGroupEndsWithTheFirst(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 9": 9} {
		g, out := group(t, `trap 'echo "$WHO term"; exit 5' TERM; echo ready; while :; do sleep 0.02; done`, "read x </dev/null; "+script)
		said(t, out, "ready")
		select {
		case <-g.Ended():
		case <-time.After(patient):
			t.Fatal("nobody ended")
		}
		if first := g.First(); first != g.all[1] {
			t.Errorf("first %v", first)
		}
		if err := g.Stop(within(t, patient), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if status, ran := g.Status(); status != want || !ran || !strings.Contains(out.String(), "group term\n") {
			t.Errorf("%s: status %d, %v, said %q", script, status, ran, out)
		}
	}
}

// Of programs that were asked to end the first counts that did not end well.
func TestGroupThatIsStopped(t *testing.T) {
	const loop = `trap 'exit %' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done`
	g, out := group(t, strings.ReplaceAll(loop, "%", "0"), strings.ReplaceAll(loop, "%", "6"), strings.ReplaceAll(loop, "%", "7"))
	eventually(t, "all to be ready", func() bool { return strings.Count(out.String(), "ready\n") == 3 })
	if err := g.Signal(syscall.SIGUSR1); err != nil {
		t.Error(err)
	}
	eventually(t, "all to hear the signal", func() bool { return strings.Count(out.String(), "usr1\n") == 3 })
	if err := g.Stop(within(t, patient), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if status, ran := g.Status(); status != 6 || !ran || g.First() != nil {
		t.Errorf("status %d, %v, first %v", status, ran, g.First())
	}
}

// One that cannot be started leaves those before it to be stopped.
func TestGroupWithOneThatCannotStart(t *testing.T) {
	good, err := New([]string{"sh", "-c", "sleep 1000"}, Options{Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/broken"
	if err := os.WriteFile(path, []byte("no program"), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	broken, err := New([]string{path}, Options{Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	g := NewGroup(good, broken)
	err = g.Start(func(*Process) {})
	if failed, ok := errors.AsType[*StartError](err); !ok || failed.Status != 126 {
		t.Errorf("started: %v", err)
	}
	if err := g.Stop(within(t, patient), syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	ended(t, good, 143)
}

func TestNoGroup(t *testing.T) {
	g := NewGroup()
	if err := errors.Join(g.Start(nil), g.Signal(os.Interrupt), g.Stop(t.Context(), os.Interrupt)); err != nil {
		t.Error(err)
	}
	g.Kill()
	if status, ran := g.Status(); status != 0 || ran || g.Ended() != nil || g.First() != nil {
		t.Errorf("status %d, %v", status, ran)
	}
}
