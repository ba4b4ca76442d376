//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/testserver"
)

// family is a sidecar with two applications below it, from its file.
type family struct {
	*sidecar
	file     string
	ann, ben string // the addresses of the applications
}

// write writes the file; extra are lines for the entry of ann, last arguments of
// the program of ben.
func (f *family) write(t *testing.T, self, extra string, last ...string) {
	t.Helper()
	text := fmt.Sprintf(`drain_delay: 2s
shutdown_grace: 60s
applications:
  - name: family.ann
    address: %s
    command: [env, %s=%s, %s=%s, %s]
%s  - name: family.ben
    address: %s
    healthcheck: { url: "http://%s/health", interval: 20ms }
    command:
      - env
      - %s=%s
      - %s
`, f.ann, appVar, f.ann, statusVar, appStatus, self, extra, f.ben, f.ben, appVar, f.ben, self)
	for _, arg := range last {
		text += "      - " + arg + "\n"
	}
	// In one step: half of it would be another list of applications.
	next := f.file + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, f.file); err != nil {
		t.Fatal(err)
	}
}

func (w world) family(t *testing.T) *family {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &family{file: filepath.Join(t.TempDir(), "micro.yaml"), ann: testserver.DeadAddr(t), ben: testserver.DeadAddr(t)}
	f.write(t, self, "")
	f.sidecar = w.with("NOTIFY_SOCKET=", "MICRO_DRAIN_DELAY=").launchAny(t, "--config="+f.file)
	return f
}

// Several applications below one sidecar: each is registered when it serves, all
// hear signals, and all are deregistered before one is asked to end.
func TestChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	other := w.sidecar(t)
	f := w.family(t)
	within(t, patient, "both to be registered", func() bool { return other.knows("family.ann") && other.knows("family.ben") })
	f.signal(syscall.SIGUSR1)
	within(t, patient, "both to hear SIGUSR1", func() bool { return strings.Count(f.out.String(), "signal user defined signal 1\n") == 2 })

	// What is said about the applications may change; what runs may not.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, self, "    metadata: { colour: blue }\n")
	within(t, patient, "the new metadata", func() bool { return strings.Contains(other.get("/registry?service=family.ann").body, "blue") })
	f.write(t, self, "    metadata: { colour: red }\n", "further")
	within(t, patient, "the log to ask for a restart", func() bool {
		return strings.Contains(f.log.String(), `these settings take effect at the next start" settings="applications (command)"`)
	})
	if n := strings.Count(f.out.String(), "serving "); n != 2 {
		t.Errorf("%d programs were started: %s", n, f.out.String())
	}
	if body := other.get("/registry?service=family.ann").body; !strings.Contains(body, "blue") {
		t.Errorf("the list of applications did not stay as it was: %s", body)
	}

	f.signal(syscall.SIGTERM)
	within(t, patient, "both to be deregistered", func() bool { return !other.knows("family.ann") && !other.knows("family.ben") })
	if ask("http://"+f.ben+"/health") != "200" && !strings.Contains(f.out.String(), "terminated") {
		t.Error("deregistered, and not serving any more")
	}
	// Ann's status is the first that is not 0.
	if status := f.wait(patient); fmt.Sprint(status) != appStatus {
		t.Errorf("exit status %d, want %s", status, appStatus)
	}
	if said := f.out.String(); strings.Count(said, "signal terminated\n") != 2 || strings.Count(said, "outbound 200\n") != 2 {
		t.Errorf("the applications said %s", f.out.String())
	}
}

// One that ends by itself takes all with it, in order and with its status.
func TestOneOfTheChildrenEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	other := w.sidecar(t)
	f := w.family(t)
	within(t, patient, "both to be registered", func() bool { return other.knows("family.ann") && other.knows("family.ben") })
	found := startedPid.FindAllStringSubmatch(f.log.String(), -1)
	if len(found) != 2 {
		t.Fatalf("started: %v", found)
	}
	var ben int
	if _, err := fmt.Sscan(found[1][1], &ben); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(ben, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if status := f.wait(patient); status != 137 {
		t.Errorf("exit status %d, want 137", status)
	}
	if other.knows("family.ann") || other.knows("family.ben") {
		t.Error("they are still registered")
	}
	if !strings.HasSuffix(f.out.String(), "signal terminated\noutbound 200\n") {
		t.Errorf("the other one said %s", f.out.String())
	}
}

// A second signal kills all of them.
func TestSecondSignalToChildren(t *testing.T) {
	t.Parallel()
	f := newWorld(t, noConsul).with(stayVar + "=1").family(t)
	within(t, patient, "both to serve", func() bool { return strings.Count(f.out.String(), "serving ") == 2 })
	f.signal(syscall.SIGTERM)
	within(t, patient, "both to be asked", func() bool { return strings.Count(f.out.String(), "signal terminated\n") == 2 })
	f.signal(syscall.SIGINT)
	if status := f.wait(patient); status != 130 {
		t.Errorf("exit status %d, want 130", status)
	}
	for _, found := range startedPid.FindAllStringSubmatch(f.log.String(), -1) {
		pid := 0
		_, _ = fmt.Sscan(found[1], &pid) // digits
		within(t, patient, "the applications to be gone", func() bool { return gone(pid) })
	}
}

// What cannot be started is told before anything is.
func TestCommandsInTheFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, noConsul)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	for command, want := range map[string]string{
		"no-such-program":       file + ":4: command: start no-such-program: executable file not found",
		"[]":                    file + ":4: command: expected a list of the program and its arguments, such as [python3, app.py]",
		"python3 app.py":        file + ":4: command: expected a list",
		"{ a: b }":              file + ":4: command: expected a list",
		"[sh, [-c]]":            file + ":4: command: expected a list",
		"":                      file + ":4: command: expected a list",
		"[sh]\n    commando: x": file + `:5: unknown setting "commando" (did you mean command?)`,
	} {
		text := "applications:\n  - name: a\n    address: 127.0.0.1:1\n    command: " + command + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.fails(t, 2, want, "sidecar", "--address=127.0.0.1:0", "--config="+file)
		w.fails(t, 2, want, "config", "check", file)
	}
}

// As the first process of its namespace the sidecar tells the end of one of its
// applications from those of others, and of orphans.
func TestFirstProcessWithChildren(t *testing.T) {
	t.Parallel()
	unshare := lookPath(t, "unshare")
	if err := exec.Command(unshare, "--pid", "--fork", "--mount-proc", "true").Run(); err != nil {
		t.Skipf("this user cannot make a PID namespace: %v", err)
	}
	w := newWorld(t, noConsul)
	file := filepath.Join(t.TempDir(), "micro.yaml")
	text := `address: 127.0.0.1:0
applications:
  - name: lasting
    address: 127.0.0.1:1
    command: [sh, -c, "trap 'echo asked; exit 3' TERM; touch ` + w.home + `/lasting; while :; do sleep 0.05; done"]
  - name: passing
    address: 127.0.0.1:2
    command: [sh, -c, "sh -c 'sleep 0.01 & echo orphan'; until [ -e ` + w.home + `/lasting ]; do sleep 0.05; done; exit 4"]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(unshare, "--pid", "--fork", "--kill-child", "--mount-proc", os.Getenv(binaryVar), "sidecar", "--config="+file)
	cmd.Env = w.env
	timer := time.AfterFunc(patient, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var log strings.Builder
	cmd.Stderr = &log
	out, _ := cmd.Output()
	if status := cmd.ProcessState.ExitCode(); status != 4 || string(out) != "orphan\nasked\n" {
		t.Errorf("exit status %d, want 4; said %q: %s", status, out, log.String())
	}
}
