package process

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second // for a start to become ready
	stopLimit  = 15 * time.Second // for an orderly stop
	pollEvery  = time.Millisecond // of /readyz: the resolution of that measure
)

// Sidecar is a running sidecar on the embedded engine. It is for one goroutine.
type Sidecar struct {
	Address string // its listener
	URL     string // the same as a URL without a path
	PID     int
	Ready   time.Duration // from start to the first 200 of /readyz

	cmd    *exec.Cmd
	log    *bytes.Buffer // read once ended is closed
	ended  chan struct{}
	client *http.Client
}

// Binary returns the path of micro: the one that was given, else of one that is
// compiled into dir.
func Binary(ctx context.Context, given, dir string) (string, error) {
	if given != "" {
		return given, nil
	}
	path := filepath.Join(dir, "micro")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/micro/sidecar/cmd/micro")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build micro: %w\n%s", err, out)
	}
	return path, nil
}

// Start starts the binary micro with an empty data directory below dir, and
// with args, and returns once it is ready.
func Start(ctx context.Context, micro, dir string, args ...string) (*Sidecar, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	data, err := os.MkdirTemp(dir, "data-")
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		Address: address, log: new(bytes.Buffer), ended: make(chan struct{}),
		URL: "http://" + address, client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}},
	}
	if slices.Contains(args, "--enable_tls") {
		s.URL = "https://" + address
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // of our own making
	}
	args = append([]string{"sidecar", "--address=" + address, "--registry=embedded", "--broker=embedded", "--data_dir=" + data}, args...)
	s.cmd = exec.Command(micro, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MICRO_") })
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the sidecar: %w", err)
	}
	s.PID = s.cmd.Process.Pid
	go func() {
		_ = s.cmd.Wait() // its status is in ProcessState
		close(s.ended)
	}()
	if err := s.waitReady(ctx); err != nil {
		_ = s.cmd.Process.Kill() // fails only when it has ended
		<-s.ended
		return nil, fmt.Errorf("%w\n%s", err, s.log)
	}
	s.Ready = time.Since(began)
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

func (s *Sidecar) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if _, err := s.Ask(ctx, http.MethodGet, "/readyz", ""); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the sidecar is not ready: %w", ctx.Err())
		case <-s.ended:
			return errors.New("the sidecar ended before it was ready")
		case <-tick.C:
		}
	}
}

// Ask sends a request with a JSON body and returns the body of a 200.
func (s *Sidecar) Ask(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
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

// Register tells the sidecar a service of one node at address, with metadata as
// a JSON object.
func (s *Sidecar) Register(ctx context.Context, name, address, metadata string) error {
	_, err := s.Ask(ctx, http.MethodPost, "/registry",
		fmt.Sprintf(`{"Name":"go.micro.srv.%s","Nodes":[{"Id":"%[1]s-1","Address":%q,"Metadata":%s}]}`, name, address, metadata))
	return err
}

// Stop ends the sidecar in good order.
func (s *Sidecar) Stop() error {
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
