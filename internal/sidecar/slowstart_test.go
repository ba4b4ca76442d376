package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/micro/sidecar/broker"
	brokermemory "github.com/micro/sidecar/broker/memory"
	"github.com/micro/sidecar/registry"
	"github.com/micro/sidecar/registry/memory"
)

// An engine that does not answer is tried again: a call's deadline and a
// connection's, which are different errors, mean the same.
func TestEngineThatDoesNotAnswerIsWaitedFor(t *testing.T) {
	refusals := []error{
		fmt.Errorf("open: %w", context.DeadlineExceeded),
		fmt.Errorf("open: %w", &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}),
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	drivers := Drivers{
		Registries: map[string]func(context.Context, Env) (registry.Registry, error){
			"memory": func(context.Context, Env) (registry.Registry, error) {
				if len(refusals) > 0 {
					err := refusals[0]
					refusals = refusals[1:]
					return nil, err
				}
				stop()
				return memory.New(), nil
			},
		},
		Brokers: map[string]func(context.Context, Env) (broker.Broker, error){
			"memory": func(context.Context, Env) (broker.Broker, error) { return brokermemory.New(), nil },
		},
	}
	cfg := testConfig()
	cfg.ShutdownGrace = time.Second
	if err := Run(ctx, cfg, drivers, quiet()); err != nil || len(refusals) > 0 {
		t.Errorf("ended with %v, %d tries left", err, len(refusals))
	}

	broken := errors.New("a newer micro")
	drivers.Registries["memory"] = func(context.Context, Env) (registry.Registry, error) { return nil, broken }
	if err := Run(t.Context(), cfg, drivers, quiet()); !errors.Is(err, broken) {
		t.Errorf("an engine that cannot be used: ended with %v", err)
	}
}
