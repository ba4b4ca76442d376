//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The application as a child, from its start to its end: it is registered when
// it serves, hears signals, is deregistered while it serves, and has its
// sidecar until it has ended.
func TestChild(t *testing.T) {
	t.Parallel()
	const name = "child.app"
	w := newWorld(t, noConsul)
	other := w.sidecar(t)
	c := w.with(statusVar+"="+appStatus, "NOTIFY_SOCKET=").child(t, name, "--drain_delay=2s", "--shutdown_grace=60s")
	within(t, patient, "the application to be registered", func() bool { return other.knows(name) })
	if !c.serving() {
		t.Error("registered, and not serving")
	}
	c.signal(syscall.SIGUSR1)
	within(t, patient, "SIGUSR1 to be passed on", func() bool { return strings.Contains(c.out.String(), "signal user defined signal 1\n") })
	c.signal(syscall.SIGHUP)
	within(t, patient, "SIGHUP to be passed on", func() bool { return strings.Contains(c.out.String(), "signal hangup\n") })

	c.signal(syscall.SIGTERM)
	within(t, patient, "the application to be deregistered", func() bool { return !other.knows(name) })
	if c.running() && !c.serving() && !strings.Contains(c.out.String(), "terminated") {
		t.Error("deregistered, and not serving any more")
	}
	if status := c.wait(patient); fmt.Sprint(status) != appStatus {
		t.Errorf("exit status %d, want %s", status, appStatus)
	}
	want := "serving " + c.addr + " \nsignal user defined signal 1\nsignal hangup\nsignal terminated\noutbound 200\n"
	if c.out.String() != want {
		t.Errorf("the application said %q, want %q", c.out.String(), want)
	}
}

// The child is asked with the signal that came.
func TestChildInterrupt(t *testing.T) {
	t.Parallel()
	c := newWorld(t, noConsul).child(t, "interrupt.app")
	within(t, patient, "the application to serve", func() bool { return strings.Contains(c.out.String(), "serving") })
	c.signal(syscall.SIGINT)
	if status := c.wait(patient); status != 0 || !strings.Contains(c.out.String(), "signal interrupt\noutbound 200\n") {
		t.Errorf("exit status %d, said %q", status, c.out.String())
	}
}

var startedPid = regexp.MustCompile(`msg="application started" pid=([0-9]+)`)

// pid is that of the application.
func (c *child) pid() int {
	c.t.Helper()
	pid := 0
	within(c.t, patient, "the application to be started", func() bool {
		found := startedPid.FindStringSubmatch(c.log.String())
		if found != nil {
			_, _ = fmt.Sscan(found[1], &pid) // digits
		}
		return pid > 0
	})
	return pid
}

// gone reports whether no process has the id, or only its remains.
func gone(pid int) bool {
	state, err := exec.Command("ps", "-o", "stat=", "-p", fmt.Sprint(pid)).Output()
	return err != nil || strings.HasPrefix(strings.TrimSpace(string(state)), "Z")
}

// A child that ends takes the sidecar with it, in order and with its status.
func TestChildEnds(t *testing.T) {
	t.Parallel()
	const name = "ends.app"
	w := newWorld(t, noConsul)
	other := w.sidecar(t)
	for signal, want := range map[syscall.Signal]int{syscall.SIGTERM: 7, syscall.SIGKILL: 137} {
		c := w.with(statusVar+"="+appStatus).child(t, name, "--drain_delay=50s", "--shutdown_grace=60s")
		within(t, patient, "the application to be registered", func() bool { return other.knows(name) })
		if err := syscall.Kill(c.pid(), signal); err != nil {
			t.Fatal(err)
		}
		if status := c.wait(patient); status != want {
			t.Errorf("%v: exit status %d, want %d", signal, status, want)
		}
		if other.knows(name) {
			t.Errorf("%v: it is still registered", signal)
		}
	}
}

// One that does not end at SIGTERM is killed when the time is up; a second
// signal kills it at once.
func TestChildStays(t *testing.T) {
	t.Parallel()
	for grace, seconds := range map[string]int{"2s": 1, "60s": 2} {
		c := newWorld(t, noConsul).with(stayVar+"=1").child(t, "stays.app", "--drain_delay=0s", "--shutdown_grace="+grace)
		pid := c.pid()
		within(t, patient, "the application to serve", func() bool { return strings.Contains(c.out.String(), "serving") })
		c.signal(syscall.SIGTERM)
		within(t, patient, "SIGTERM to be passed on", func() bool { return strings.Contains(c.out.String(), "signal terminated") })
		want := 137
		if seconds == 2 {
			want = 143
			c.signal(syscall.SIGTERM)
		}
		if status := c.wait(patient); status != want {
			t.Errorf("grace %s: exit status %d, want %d", grace, status, want)
		}
		if seconds == 1 && !strings.Contains(c.log.String(), "did not end in time and was killed\n") {
			t.Errorf("nothing says that it was killed: %s", c.log.String())
		}
		within(t, patient, "the application to be gone", func() bool { return gone(pid) })
	}
}

// A sidecar that is killed takes its child with it, where the system can.
func TestSidecarKilled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a child of its parent's death")
	}
	c := newWorld(t, noConsul).child(t, "orphan.app")
	pid := c.pid()
	within(t, patient, "the application to serve", func() bool { return strings.Contains(c.out.String(), "serving") })
	c.kill()
	within(t, patient, "the application to be gone", func() bool { return gone(pid) })
}

// A command that cannot be started ends as in a shell, before anything begins.
func TestNoChild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	plain := w.home + "/plain"
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(t, 127, "start no-such-program: executable file not found", "sidecar", "--address=127.0.0.1:0", "--", "no-such-program", "--flag")
	w.fails(t, 126, "start "+plain+": permission denied", "--address=127.0.0.1:0", "sidecar", "--", plain)
	w.fails(t, 2, "a command is missing after --", "sidecar", "--")
}

// Each of two sidecars with their applications below them is restarted in
// order, while a third calls the service.
func TestRestartWithChild(t *testing.T) {
	t.Parallel()
	const name = "rolling.app"
	w := newWorld(t, noConsul)
	caller := w.sidecar(t)
	start := func() *child {
		before := nodes(caller, name)
		c := w.child(t, name, "--drain_delay=1s", "--shutdown_grace=60s")
		within(t, patient, "another node", func() bool { return nodes(caller, name) == before+1 })
		return c
	}
	running := []*child{start(), start()}
	load := caller.load("/rpc", `{"service":"`+name+`","method":"Say.Hello","request":`+john+`}`, contentType, jsonType)
	for _, c := range running[:2:2] {
		calls := load.count()
		within(t, patient, "some calls", func() bool { return load.count() > calls+50 })
		c.signal(syscall.SIGTERM)
		if status := c.wait(patient); status != 0 {
			t.Errorf("exit status %d", status)
		}
		running = append(running, start())
	}
	calls := load.count()
	within(t, patient, "some calls", func() bool { return load.count() > calls+50 })
	load.clean("calls during two orderly restarts")
	for _, c := range running[2:] {
		c.signal(syscall.SIGTERM)
		c.wait(patient)
	}
}

// nodes counts the nodes of a service.
func nodes(s *sidecar, name string) int {
	a := s.get("/registry?service=" + name)
	if a.status != 200 {
		return 0
	}
	return strings.Count(a.body, `"id"`)
}

// As the first process of its namespace the sidecar reaps what others leave.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("PID namespaces are Linux's")
	}
	unshare := lookPath(t, "unshare")
	if err := exec.Command(unshare, "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		t.Skipf("this user cannot make a PID namespace: %v", err)
	}
	w := newWorld(t, noConsul)
	// Twenty orphans end; then none of them may be left as a zombie.
	script := `echo "pid 1 is $(cat /proc/1/comm)"
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sh -c 'sleep 0.01 & echo orphan' ; done
		n=0; while [ $n -lt 600 ] && ps -eo stat= | grep -q Z || pgrep -x sleep >/dev/null; do n=$((n+1)); sleep 0.05; done
		echo "zombies: $(ps -eo stat= | grep -c Z)"; exit 4`
	cmd := exec.Command(unshare, "--pid", "--fork", "--kill-child", "--mount-proc",
		os.Getenv(binaryVar), "sidecar", "--address=127.0.0.1:0", "--", "sh", "-c", script)
	cmd.Env = w.env
	timer := time.AfterFunc(patient, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var log strings.Builder
	cmd.Stderr = &log
	out, _ := cmd.Output()
	if status := cmd.ProcessState.ExitCode(); status != 4 {
		t.Errorf("exit status %d, want 4: %s", status, log.String())
	}
	if text := string(out); !strings.HasPrefix(text, "pid 1 is micro\n") || strings.Count(text, "orphan\n") != 20 || !strings.HasSuffix(text, "zombies: 0\n") {
		t.Errorf("it said %q; the log: %s", text, log.String())
	}
}
