package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/micro/sidecar/internal/testserver"
)

const (
	sigterm = syscall.SIGTERM
	// patience is how long a script waits for something to happen.
	patience = 60 * time.Second
)

// scripts is how one folder of scripts is run.
type scripts struct {
	through bool   // a sidecar
	consul  string // an agent's address; without one the engine is the embedded one
}

// setup gives every script a data directory and an environment of its own.
func (s *scripts) setup(e *testscript.Env) error {
	e.Vars = append(e.Vars,
		"MICRO_DATA_DIR="+filepath.Join(e.WorkDir, "data"),
		"MICRO_REGISTRY=embedded",
		// Parallel scripts on a slow machine have time.
		"MICRO_CLIENT_REQUEST_TIMEOUT=15s",
		"MICRO_DRAIN_DELAY=0s",
		// A program built with -race sleeps a second at its end.
		"GORACE=atexit_sleep_ms=0",
	)
	if s.consul != "" {
		e.Vars = append(e.Vars, "MICRO_REGISTRY=consul", "CONSUL_HTTP_ADDR="+s.consul)
	}
	e.Values[processes{}] = map[string]*process{}
	return nil
}

// processes is the key of a script's running programs.
type processes struct{}

func running(ts *testscript.TestScript) map[string]*process {
	all, ok := ts.Value(processes{}).(map[string]*process)
	if !ok {
		ts.Fatalf("the script has no processes")
	}
	return all
}

// process is a program that runs beside the script.
type process struct {
	cmd      *exec.Cmd
	out, err testserver.Output
	done     chan struct{} // closed when it has ended
}

// start runs micro beside the script and ends it with it.
func start(ts *testscript.TestScript, name string, args ...string) *process {
	bin, _, _ := strings.Cut(ts.Getenv("PATH"), string(os.PathListSeparator))
	p := &process{cmd: exec.Command(filepath.Join(bin, "micro"), args...), done: make(chan struct{})}
	p.cmd.Dir = ts.MkAbs(".")
	for _, v := range []string{
		"PATH", "HOME", "TMPDIR", "XDG_STATE_HOME", "MICRO_DATA_DIR", "MICRO_REGISTRY", "MICRO_PROXY_ADDRESS",
		"MICRO_CLIENT_REQUEST_TIMEOUT", "MICRO_DRAIN_DELAY", "MICRO_SIDECAR_NAMESPACE", "GORACE", "CONSUL_HTTP_ADDR",
	} {
		p.cmd.Env = append(p.cmd.Env, v+"="+ts.Getenv(v))
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	ts.Check(p.cmd.Start())
	running(ts)[name] = p
	go func() {
		_ = p.cmd.Wait() // the status is in ProcessState
		close(p.done)
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		ts.Logf("%s wrote to stderr:\n%s", name, p.err.String())
	})
	return p
}

// await waits until the output matches.
func (p *process) await(ts *testscript.TestScript, o *testserver.Output, matches func(string) bool) {
	for deadline := time.Now().Add(patience); !matches(o.String()); time.Sleep(5 * time.Millisecond) {
		select {
		case <-p.done:
			if matches(o.String()) {
				return
			}
			ts.Fatalf("the program ended: %v\nstdout: %s\nstderr: %s", p.cmd.ProcessState, &p.out, &p.err)
		default:
		}
		if time.Now().After(deadline) {
			ts.Fatalf("it did not come\nstdout: %s\nstderr: %s", &p.out, &p.err)
		}
	}
}

// firstLog is the sidecar's first log line, which tells its address.
var firstLog = regexp.MustCompile(`(?m)^time=.*$`)

var listening = regexp.MustCompile(` address="?(127\.0\.0\.1:[0-9]+)`)

func (s *scripts) sidecar(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: sidecar NAME [FLAG…]")
	}
	p := start(ts, args[0], append([]string{"sidecar", "--address=127.0.0.1:0"}, args[1:]...)...)
	p.await(ts, &p.err, func(text string) bool { return strings.Contains(text, "msg=ready") })
	first := firstLog.FindString(p.err.String())
	found := listening.FindStringSubmatch(first)
	if found == nil {
		ts.Fatalf("the first log line has no address: %s", first)
	}
	ts.Setenv(args[0], found[1])
	if s.through {
		ts.Setenv("MICRO_PROXY_ADDRESS", found[1])
	}
}

func follow(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: follow NAME ARG…")
	}
	p := start(ts, args[0], args[1:]...)
	p.await(ts, &p.err, func(text string) bool {
		return strings.Contains(text, "micro: subscribed to ") || strings.Contains(text, "micro: watching ")
	})
}

func printed(ts *testscript.TestScript, _ bool, args []string) {
	p := named(ts, args, 2)
	p.await(ts, &p.out, func(text string) bool { return strings.Contains("\n"+text, "\n"+args[1]+"\n") })
}

func said(ts *testscript.TestScript, _ bool, args []string) {
	p := named(ts, args, 2)
	p.await(ts, &p.err, func(text string) bool { return strings.Contains(text, args[1]) })
}

// named returns the program that a command is about.
func named(ts *testscript.TestScript, args []string, count int) *process {
	if len(args) != count || running(ts)[args[0]] == nil {
		ts.Fatalf("expected the name of a running program and %d more", count-1)
	}
	return running(ts)[args[0]]
}

// end sends a signal; the program must end well, unless it is killed.
func end(ts *testscript.TestScript, args []string, sig os.Signal) {
	p := named(ts, args, 1)
	ts.Check(p.cmd.Process.Signal(sig))
	p.wait(ts)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 && sig != os.Kill {
		ts.Fatalf("%s ended with %v\nstderr: %s", args[0], p.cmd.ProcessState, &p.err)
	}
}

func signal(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(named(ts, args, 1).cmd.Process.Signal(os.Interrupt))
}

func ended(ts *testscript.TestScript, _ bool, args []string) {
	p := named(ts, args, 2)
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	p.wait(ts)
	if code := p.cmd.ProcessState.ExitCode(); code != want {
		ts.Fatalf("%s ended with %v, want %d\nstderr: %s", args[0], p.cmd.ProcessState, want, &p.err)
	}
}

func (p *process) wait(ts *testscript.TestScript) {
	select {
	case <-p.done:
	case <-time.After(patience):
		ts.Fatalf("the program does not end\nstderr: %s", &p.err)
	}
}

// eventually runs a program again and again until it ends as it should.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: eventually PROGRAM [ARG…]")
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if (ts.Exec(args[0], args[1:]...) != nil) == neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("it never came to that")
		}
	}
}

// greeter starts a service of 2017's kind, which also answers GET /health.
func greeter(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: greeter NAME")
	}
	server := httptest.NewServer(http.HandlerFunc(greet))
	ts.Defer(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], server.Listener.Addr().String())
	ts.Setenv(args[0]+"_HOST", host)
	ts.Setenv(args[0]+"_PORT", port)
}

func greet(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/health" {
		return
	}
	var request struct {
		Method string
		Params []struct{ Name string }
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Params) != 1 {
		http.Error(w, fmt.Sprint("no request: ", err), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch request.Method {
	case "Say.Hello":
		fmt.Fprintf(w, `{"id":0,"result":{"msg":%q}}`, "Hello "+request.Params[0].Name)
	case "Debug.Health":
		fmt.Fprint(w, `{"id":0,"result":{"status":"ok"}}`)
	case "Debug.Stats":
		fmt.Fprint(w, `{"id":0,"result":{"started":1499951537,"memory":"1.5MB"}}`)
	default:
		fmt.Fprint(w, `{"id":0,"error":"{\"id\":\"greeter\",\"code\":404,\"detail\":\"no such method\"}"}`)
	}
}
