//go:build unix

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeVar makes this test's binary a node: its value is the node's name.
const nodeVar = "MICRO_TEST_NODE"

// serveNode is a node in a process of its own. It tells its address on stdout
// and says its name in every answer; SIGTERM ends it when all are given.
func serveNode() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return failed(err)
	}
	name := os.Getenv(nodeVar)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-time.After(5 * time.Millisecond) // its work
		w.Header().Set("X-Node", name)
		if r.URL.Path == "/" {
			w.Header().Set(contentType, jsonType)
			_, _ = fmt.Fprintf(w, `{"id":0,"result":{"node":%q},"error":null}`, name)
		} else {
			_, _ = io.WriteString(w, name)
		}
	})}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Println(l.Addr())
	select {
	case err = <-served:
		return failed(err)
	case <-stop.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		return failed(err)
	}
	return 0
}

// nodeProcess is a running node.
type nodeProcess struct {
	name, addr string
	cmd        *exec.Cmd
	done       chan struct{}
}

// startNode starts a node; the end of the test kills it.
func startNode(t *testing.T, name string) *nodeProcess {
	t.Helper()
	n := &nodeProcess{name: name, cmd: exec.Command(os.Args[0]), done: make(chan struct{})}
	n.cmd.Env = append(os.Environ(), nodeVar+"="+name)
	n.cmd.Stderr = os.Stderr
	dieWithParent(n.cmd)
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan error)
	go func() { // see world.micro
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := n.cmd.Start()
		started <- err
		if err == nil {
			line, _ := bufio.NewReader(out).ReadString('\n')
			n.addr = strings.TrimSpace(line)
			started <- nil
			_ = n.cmd.Wait() // the status is in ProcessState
			close(n.done)
		}
	}()
	if err := errors.Join(<-started, <-started); err != nil || n.addr == "" {
		t.Fatalf("start a node: %v", err)
	}
	t.Cleanup(n.kill)
	return n
}

// kill is kill -9; it returns when the process is gone.
func (n *nodeProcess) kill() {
	_ = n.cmd.Process.Kill() // it may have ended
	<-n.done
}

func (n *nodeProcess) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v: %v", s, err)
	}
}
