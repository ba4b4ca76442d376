package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/micro/sidecar/bench/internal/process"
)

// backend answers every request with its name, on all loopback addresses.
type backend struct {
	server http.Server
	port   int
	served chan error
}

func startBackend(name string) (*backend, error) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	b := &backend{port: listener.Addr().(*net.TCPAddr).Port, served: make(chan error, 1)}
	b.server.ReadHeaderTimeout = time.Minute
	b.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil // not what is measured
		_, _ = io.WriteString(w, name)
	})
	go func() { b.served <- b.server.Serve(listener) }()
	return b, nil
}

func (b *backend) close() error {
	err := b.server.Close()
	if served := <-b.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// client is for everything but the load.
var client = &http.Client{
	Timeout:   5 * time.Minute,
	Transport: &http.Transport{MaxIdleConnsPerHost: writers},
}

// send sends a request and returns the body of an answer with that status.
func send(ctx context.Context, s *process.Sidecar, method, path, body, handler string, status int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Address+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Micro-Handler", handler)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode != status {
		return nil, fmt.Errorf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	return answer, nil
}
