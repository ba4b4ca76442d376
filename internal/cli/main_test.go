package cli

import (
	"context"
	"io"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/micro/sidecar/broker"
	"github.com/micro/sidecar/internal/sidecar"
	"github.com/micro/sidecar/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// someDrivers is a table in which names are all that counts: nothing of it may
// be opened.
func someDrivers(t *testing.T) sidecar.Drivers {
	reg := func(context.Context, sidecar.Env) (registry.Registry, error) {
		t.Error("a registry was opened")
		return nil, io.ErrUnexpectedEOF
	}
	msg := func(context.Context, sidecar.Env) (broker.Broker, error) {
		t.Error("a broker was opened")
		return nil, io.ErrUnexpectedEOF
	}
	return sidecar.Drivers{
		Registries: map[string]func(context.Context, sidecar.Env) (registry.Registry, error){"consul": reg, "embedded": reg},
		Brokers:    map[string]func(context.Context, sidecar.Env) (broker.Broker, error){"http": msg, "embedded": msg},
	}
}

// result is what a run of micro left behind.
type result struct {
	status   int
	out, err string
}

// micro runs a command line with the given environment.
func micro(t *testing.T, d sidecar.Drivers, env []string, args ...string) result {
	t.Helper()
	var out, err strings.Builder
	status := run(t.Context(), args, &streams{env: env, in: strings.NewReader(""), out: &out, err: &err}, d)
	return result{status, out.String(), err.String()}
}

// understood returns what the command makes of its settings, without running.
func understood(t *testing.T, c command, env []string, args ...string) (*invocation, error) {
	t.Helper()
	var got *invocation
	c.run = func(_ context.Context, i *invocation) error {
		got = i
		return nil
	}
	a := &app{streams: &streams{env: env, in: strings.NewReader(""), out: io.Discard, err: io.Discard}, drivers: someDrivers(t), settings: settingsTable()}
	cmd := a.cobra(c)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	if err == nil {
		err = a.chosen(t.Context())
	}
	return got, err
}
