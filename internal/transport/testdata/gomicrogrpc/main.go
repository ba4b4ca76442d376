// Command gomicrogrpc is a go-micro service over gRPC for the tests: it prints
// its node's address and metadata as one line of JSON and serves until its
// standard input ends. It is a module of its own because go-micro's gRPC server
// brings go-micro's whole command line with it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"go-micro.dev/v5/broker"
	merrors "go-micro.dev/v5/errors"
	"go-micro.dev/v5/logger"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/server"
	"go-micro.dev/v5/server/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const name = "go.micro.srv.greeter"

// Say is the handler.
type Say struct{}

// Hello is a request.
type Hello struct {
	Name string `json:"name"`
	N    int    `json:"n,omitempty"`
}

// Greeting is an answer.
type Greeting struct {
	Text string            `json:"text"`
	Meta map[string]string `json:"meta,omitempty"`
	Left bool              `json:"left,omitempty"` // there was a deadline
}

// Hello greets.
func (*Say) Hello(ctx context.Context, req *Hello, rsp *Greeting) error {
	rsp.Text = "Hello " + req.Name
	_, rsp.Left = ctx.Deadline()
	if req.Name == "meta" {
		rsp.Meta, _ = metadata.FromContext(ctx)
	}
	return nil
}

// Proto greets in protobuf.
func (*Say) Proto(_ context.Context, req, rsp *wrapperspb.StringValue) error {
	rsp.Value = "Hello " + req.Value
	return nil
}

// Fail fails in the way it is told.
func (*Say) Fail(_ context.Context, req *Hello, _ *Greeting) error {
	switch req.Name {
	case "plain":
		return errors.New("no such name")
	case "odd":
		return merrors.New(name, "odd code", 42)
	case "teapot":
		return merrors.New(name, "short and stout", 418)
	case "panic":
		panic("handler gives up")
	}
	return merrors.NotFound(name, "no %s here", req.Name)
}

// Slow waits for the end of its time.
func (*Say) Slow(ctx context.Context, _ *Hello, _ *Greeting) error {
	<-ctx.Done()
	return ctx.Err()
}

// Count answers one request with n messages; with a name, it fails then.
func (*Say) Count(_ context.Context, s server.Stream) error {
	var req Hello
	if err := s.Recv(&req); err != nil {
		return err
	}
	for i := range req.N {
		if err := s.Send(&Greeting{Text: fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	if req.Name != "" {
		return merrors.Conflict(name, "after %d for %s", req.N, req.Name)
	}
	return nil
}

// Echo answers each message as it comes.
func (*Say) Echo(_ context.Context, s server.Stream) error {
	for {
		var req Hello
		if err := s.Recv(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&Greeting{Text: "Hello " + req.Name}); err != nil {
			return err
		}
	}
}

func main() {
	quiet := logger.NewLogger(logger.WithOutput(io.Discard))
	reg := registry.NewMemoryRegistry(registry.Logger(quiet))
	srv := grpc.NewServer(
		server.Name(name), server.Address("127.0.0.1:0"), server.Registry(reg),
		server.Broker(broker.NewMemoryBroker()), server.WithLogger(quiet),
	)
	if err := srv.Handle(srv.NewHandler(new(Say))); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		log.Fatal(err)
	}
	services, err := reg.GetService(name)
	if err != nil || len(services) != 1 || len(services[0].Nodes) != 1 {
		log.Fatalf("the service is not registered: %v, %v", services, err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(services[0].Nodes[0]); err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is the word to stop
	if err := srv.Stop(); err != nil {
		log.Fatal(err)
	}
}
