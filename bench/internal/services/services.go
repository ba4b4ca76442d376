// Package services has the steps that benchmarks of many services share: the
// nodes, all of them one server, their registration, and requests. What is
// measured is its callers'.
package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Backend answers every request with its port, on all loopback addresses.
type Backend struct {
	Port int

	server http.Server
	served chan error
}

// StartBackend starts one on a port that the system gives.
func StartBackend() (*Backend, error) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	b := &Backend{Port: listener.Addr().(*net.TCPAddr).Port, served: make(chan error, 1)}
	b.server.ReadHeaderTimeout = time.Minute
	b.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil // not what is measured
		_, _ = io.WriteString(w, b.Answer())
	})
	go func() { b.served <- b.server.Serve(listener) }()
	return b, nil
}

// Answer is the body of its answers.
func (b *Backend) Answer() string { return strconv.Itoa(b.Port) }

// Close ends it with its connections.
func (b *Backend) Close() error {
	err := b.server.Close()
	if served := <-b.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// Registration is service i as POST /registry takes it. Its nodes are the
// backend under several loopback addresses: to a sidecar, different ones.
func Registration(i, nodes int, b *Backend) string {
	var list []string
	for n := range nodes {
		list = append(list, fmt.Sprintf(`{"Id":"s%d-%d","Address":"127.0.0.%d","Port":%d,"Metadata":{"zone":"a"}}`, i, n, n+1, b.Port))
	}
	return fmt.Sprintf(`{"Name":"go.micro.srv.s%d","Version":"1","Nodes":[%s]}`, i, strings.Join(list, ","))
}

// Path is one of service i.
func Path(i int) string { return fmt.Sprintf("/s%d/x", i) }

// Send sends a request for a handler, rpc or proxy, and returns the body of an
// answer with that status.
func Send(ctx context.Context, client *http.Client, handler, method, url, body string, status int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Micro-Handler", handler)
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return "", fmt.Errorf("%s %s: %w", method, url, err)
	}
	if resp.StatusCode != status {
		return "", fmt.Errorf("%s %s: %s %s", method, url, resp.Status, answer)
	}
	return string(answer), nil
}

// Each calls do with 0 to n-1, some at a time.
func Each(ctx context.Context, n, atATime int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atATime)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}
