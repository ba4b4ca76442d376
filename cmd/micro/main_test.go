package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/micro/sidecar/internal/testserver"
)

// TestMain lets the scripts run this very program as micro.
func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"micro": main})
}

// leakChecked is goleak.VerifyTestMain for a TestMain that is testscript's.
type leakChecked struct{ m *testing.M }

// Run runs the tests and then looks for goroutines.
func (l leakChecked) Run() int {
	status := l.m.Run()
	if status != 0 {
		return status
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Scripts that are about one thing of the sidecar or of the command line.
func TestScripts(t *testing.T) {
	testscript.Run(t, params("testdata/script", false))
}

// The commands do the same whether they talk to the engines …
func TestDirect(t *testing.T) {
	testscript.Run(t, params("testdata/script/both", false))
}

// … or to a sidecar.
func TestThroughSidecar(t *testing.T) {
	testscript.Run(t, params("testdata/script/both", true))
}

// What is different beside a Consul agent.
func TestConsul(t *testing.T) {
	agent := testserver.Consul(t)
	testscript.Run(t, withScripts("testdata/script/consul", &scripts{consul: agent.Addr}))
}

// params is how the scripts of a folder are run. Beside testscript's own
// commands they have:
//
//	sidecar NAME [FLAG…]   starts a sidecar and waits until it is ready; $NAME is
//	                       its address, and the commands after it go through it
//	                       if the script is run that way
//	follow NAME ARG…       starts micro ARG… and waits until it is live
//	printed NAME TEXT      waits until that has printed the line TEXT
//	said NAME TEXT         the same for stderr, and part of a line
//	interrupt NAME         sends SIGINT and waits for the exit status 0
//	terminate NAME         the same with SIGTERM
//	crash NAME             ends it without a word
//	signal NAME            sends SIGINT and goes on
//	ended NAME STATUS      waits until it ends by itself with the status
//	status N PROGRAM ARG…  runs a program that must end with the status
//	eventually PROGRAM ARG…  runs it until it succeeds (! until it fails)
//	greeter NAME           starts a JSON-RPC service; $NAME is its address
func params(dir string, through bool) testscript.Params {
	return withScripts(dir, &scripts{through: through})
}

func withScripts(dir string, s *scripts) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		Setup:               s.setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"sidecar":    s.sidecar,
			"follow":     follow,
			"printed":    printed,
			"said":       said,
			"interrupt":  func(ts *testscript.TestScript, _ bool, args []string) { end(ts, args, os.Interrupt) },
			"terminate":  func(ts *testscript.TestScript, _ bool, args []string) { end(ts, args, sigterm) },
			"crash":      func(ts *testscript.TestScript, _ bool, args []string) { end(ts, args, os.Kill) },
			"signal":     signal,
			"ended":      ended,
			"status":     status,
			"eventually": eventually,
			"greeter":    greeter,
		},
	}
}

// status runs a program and compares its exit status.
func status(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}
