package main

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
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// firstEvent is what a stream begins with.
func firstEvent() string { return "data: " + strings.Repeat("x", messageSize) + "\n\n" }

// serveNode is the node. It prints its address.
func serveNode(ctx context.Context, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(ctx), ReadHeaderTimeout: openLimit}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Fprintln(out, l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler has WebSockets that echo at /node/socket, a stream of one event at
// /node/events, and "ok" elsewhere.
func handler(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/node/socket", func(w http.ResponseWriter, r *http.Request) { serveEcho(ctx, w, r) })
	mux.HandleFunc("/node/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, firstEvent())    // who is gone
		_ = http.NewResponseController(w).Flush() // gets no event
		<-r.Context().Done()
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	return mux
}

func serveEcho(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // it was answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return
		}
	}
}

// node is the running node, a process of its own: its memory is not the
// sidecar's.
type node struct {
	cmd     *exec.Cmd
	address string
}

func startNode(ctx context.Context) (*node, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-node")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the node: %w", err)
	}
	n := &node{cmd: cmd}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })() // it ends the wait below
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the node did not start: %w", err), n.stop())
	}
	n.address = strings.TrimSpace(line)
	return n, nil
}

func (n *node) stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timer := time.AfterFunc(openLimit, func() { _ = n.cmd.Process.Kill() }) // it did not listen
	defer timer.Stop()
	return n.cmd.Wait()
}
