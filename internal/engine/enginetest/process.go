// Package enginetest runs processes that host or join an embedded engine, so
// that tests can kill and pause real ones. A process is the test binary run
// again: its TestMain calls [Main] first.
package enginetest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/micro/sidecar/internal/engine"
)

// environment variables that make the test binary a helper process.
const (
	envDir  = "MICRO_ENGINETEST_DIR"
	envWork = "MICRO_ENGINETEST_WORK"
)

// Work is what a helper process does with its engine beside holding it. It
// ends with ctx; what it prints is read by [Process.Line].
type Work func(ctx context.Context, e *engine.Engine) error

// Main returns at once in an ordinary test run. In a helper process it opens
// the engine, does the named work, waits for the end of its standard input,
// closes the engine in order and exits.
func Main(works map[string]Work) {
	dir := os.Getenv(envDir)
	if dir == "" {
		return
	}
	if err := help(dir, works[os.Getenv(envWork)]); err != nil {
		fmt.Fprintln(os.Stderr, "helper:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func help(dir string, work Work) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	start := time.Now()
	e, err := engine.Open(ctx, engine.Options{DataDir: dir, CanHost: true, Log: slog.Default()})
	if err != nil {
		return err
	}
	ready := Ready{PID: os.Getpid(), Hosting: e.Hosting(), Took: time.Since(start)}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		if work == nil {
			done <- nil
			return
		}
		done <- work(ctx, e)
	}()
	_, readErr := io.Copy(io.Discard, os.Stdin)
	cancel()
	return errors.Join(readErr, <-done, e.Close(context.Background()))
}

// Ready is what a helper process tells when its engine is open.
type Ready struct {
	PID     int
	Hosting bool
	Took    time.Duration // of [engine.Open]
}

// Process is a helper process.
type Process struct {
	Ready
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	ended chan error
}

// Start runs a process with an engine in dir and the work of that name, ""
// for none, and returns when its engine is open.
func Start(t testing.TB, dir, work string) *Process {
	t.Helper()
	p := &Process{t: t, lines: make(chan string, 1<<16), ended: make(chan error, 1)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), envDir+"="+dir, envWork+"="+work)
	p.cmd.Stderr = &logWriter{t: t}
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		scan := bufio.NewScanner(out)
		for scan.Scan() {
			p.lines <- scan.Text()
		}
		close(p.lines)
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.Kill)
	if err := json.Unmarshal([]byte(p.Line()), &p.Ready); err != nil {
		t.Fatalf("helper process: %v", err)
	}
	return p
}

// Line returns the next line that the process prints.
func (p *Process) Line() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			p.t.Fatal("the helper process ended")
		}
		return line
	case <-time.After(30 * time.Second):
		p.t.Fatal("the helper process says nothing")
	}
	return ""
}

// Lines returns all that an ended process had printed and was not read.
func (p *Process) Lines() []string {
	var lines []string
	for line := range p.lines {
		lines = append(lines, line)
	}
	return lines
}

// Kill ends the process as kill -9 does and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	for range p.ended { // how it ended does not matter
	}
}

// Stop lets the process end in order and returns when it is gone.
func (p *Process) Stop() {
	p.t.Helper()
	_ = p.in.Close()
	if err := <-p.ended; err != nil {
		p.t.Errorf("helper process: %v", err)
	}
}

// logWriter sends a process's log to the test's.
type logWriter struct{ t testing.TB }

func (w *logWriter) Write(p []byte) (int, error) {
	w.t.Logf("helper: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}
