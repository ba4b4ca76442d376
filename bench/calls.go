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

// call carries n RPC calls, one after the other, to a JSON-RPC node of our own.
func call(ctx context.Context, s *process.Sidecar, n int) (err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	node := http.Server{Handler: http.HandlerFunc(greet), ReadHeaderTimeout: 30 * time.Second}
	served := make(chan struct{})
	go func() {
		_ = node.Serve(listener) // until Close
		close(served)
	}()
	defer func() {
		err = errors.Join(err, node.Close())
		<-served
	}()
	if err := s.Register(ctx, "greeter", listener.Addr().String(), "{}"); err != nil {
		return err
	}
	for range n {
		answer, err := s.Ask(ctx, http.MethodPost, "/greeter/say/hello", `{"name":"John"}`)
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
