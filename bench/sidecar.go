package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second // for a start to become ready
	stopLimit  = 15 * time.Second // for an orderly stop
	pollEvery  = time.Millisecond // of /readyz: the resolution of that measure
)

// sidecar is a running sidecar on the embedded engine.
type sidecar struct {
	cmd    *exec.Cmd
	log    *bytes.Buffer // read once ended is closed
	ended  chan struct{}
	url    string
	ready  time.Duration // from start to the first 200 of /readyz
	client *http.Client
}

// start starts a sidecar with an empty data directory and returns once it is
// ready.
func (b *bench) start(ctx context.Context) (*sidecar, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(b.dir, "data-")
	if err != nil {
		return nil, err
	}
	s := &sidecar{
		log: new(bytes.Buffer), ended: make(chan struct{}), url: "http://" + address,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}},
	}
	s.cmd = exec.Command(b.micro, "sidecar", "--address="+address, "--registry=embedded", "--broker=embedded", "--data_dir="+data)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MICRO_") })
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the sidecar: %w", err)
	}
	go func() {
		_ = s.cmd.Wait() // its status is in ProcessState
		close(s.ended)
	}()
	if err := s.waitReady(ctx); err != nil {
		_ = s.cmd.Process.Kill() // fails only when it has ended
		<-s.ended
		return nil, fmt.Errorf("%w\n%s", err, s.log)
	}
	s.ready = time.Since(began)
	return s, nil
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (s *sidecar) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if _, err := s.ask(ctx, http.MethodGet, "/readyz", ""); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the sidecar is not ready: %w", ctx.Err())
		case <-s.ended:
			return errors.New("the sidecar ended")
		case <-tick.C:
		}
	}
}

// ask sends a request and returns the body of a 200.
func (s *sidecar) ask(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	return string(answer), nil
}

// call carries n RPC calls, one after the other, to a JSON-RPC node of our own.
func (s *sidecar) call(ctx context.Context, n int) (err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node := http.Server{Handler: http.HandlerFunc(greet), ReadHeaderTimeout: startLimit}
	served := make(chan struct{})
	go func() {
		_ = node.Serve(listener) // until Close
		close(served)
	}()
	defer func() {
		err = errors.Join(err, node.Close())
		<-served
	}()
	service := fmt.Sprintf(`{"Name":"go.micro.srv.greeter","Nodes":[{"Id":"greeter-1","Address":%q}]}`, listener.Addr())
	if _, err := s.ask(ctx, http.MethodPost, "/registry?ttl=1m", service); err != nil {
		return err
	}
	for range n {
		answer, err := s.ask(ctx, http.MethodPost, "/greeter/say/hello", `{"name":"John"}`)
		if err != nil {
			return err
		}
		if !strings.Contains(answer, "Hello John") {
			return fmt.Errorf("POST /greeter/say/hello: unexpected answer %s", answer)
		}
	}
	return nil
}

// greet answers any JSON-RPC call.
func greet(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // a caller that left gets no answer
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"id":0,"result":{"msg":"Hello John"},"error":null}`)
}

// resident is the sidecar's resident memory in bytes.
func (s *sidecar) resident() (int64, error) {
	path := fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read resident memory: %w", err)
	}
	return parseRSS(string(status))
}

// parseRSS reads the line "VmRSS:     1234 kB" of proc(5)'s status file.
func parseRSS(status string) (int64, error) {
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[0] != "VmRSS:" || fields[2] != "kB" {
			continue
		}
		kilobytes, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read resident memory: %w", err)
		}
		return kilobytes * 1024, nil
	}
	return 0, errors.New("read resident memory: no VmRSS in the status file")
}

// stop ends the sidecar in good order.
func (s *sidecar) stop() error {
	s.client.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop the sidecar: %w", err)
	}
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		_ = s.cmd.Process.Kill() // fails only when it has ended
		<-s.ended
		return fmt.Errorf("the sidecar did not stop within %v", stopLimit)
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("the sidecar ended with %s\n%s", s.cmd.ProcessState, s.log)
	}
	return nil
}
